"""Files from the network: brought here whole and checked or not at all, unpacked without trust, kept in one folder."""
