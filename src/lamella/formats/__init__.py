"""Other codes' weights and configurations, read without executing anything in them."""
