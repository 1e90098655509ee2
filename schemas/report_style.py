"""The stylesheet of report.html. The trainer writes it into the page; the service's policy permits it by its hash."""

import base64
import hashlib

REPORT_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
img { max-width: 100%; }
table { border-collapse: collapse; }
th, td { padding: 0.25rem 0.75rem; border-bottom: 1px solid #8886; text-align: right; }
th:first-child { text-align: left; }
pre { overflow-x: auto; }
@media (max-width: 30rem) { table { font-size: 0.75rem; } th, td { padding: 0.25rem; overflow-wrap: anywhere; } }
"""
REPORT_STYLE_SOURCE = f"'sha256-{base64.b64encode(hashlib.sha256(REPORT_STYLE.encode()).digest()).decode()}'"
"""The stylesheet's source expression (Content Security Policy Level 3, section 2.3.1)."""
