"""A store as one HTML page: what ran and how, what failed, pictures, tables. No network, no server needed.

    content    what the page says, as plain JSON         facts    counts, times, hosts, failures
    rows       a group's results, read when indexed      encode   plots and tables, of bounded size
    importance which parameters matter for a result      redact   no credentials
    render     the page around it                        assets/  its HTML, CSS and JavaScript

The page builds itself from the JSON by setting text, never markup: names and traces cannot inject any.
"""

from jobs.report.page.content import EMPTY as EMPTY
from jobs.report.page.content import Content as Content
from jobs.report.page.content import require_content as require_content
from jobs.report.page.redact import redact as redact
from jobs.report.page.render import render as render
