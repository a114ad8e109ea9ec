"""``report.html``: one page that tells a chemist what a run made and how good it is."""

from lamella.use.report.write import REPORT, write_report

__all__ = ["REPORT", "write_report"]
