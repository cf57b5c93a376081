"""A store as one HTML page: what ran and how, what failed, plots, tables. Needs no network and no server.

    content    everything on the page, as JSON           facts    counts, times, hosts, failures
    rows       a group's results, read when indexed      encode   plots and tables, of bounded size
    pictures   those that a store keeps for readers who do not run its kernel
    live       curves of what is being computed          several  the contents of several stores as one
    render     the HTML around the JSON                  assets/  its HTML, CSS and JavaScript

The page's script inserts the JSON as text, never as markup, so names and traces cannot inject any.
"""

from jobs.report.page.content import EMPTY as EMPTY
from jobs.report.page.content import Content as Content
from jobs.report.page.content import require_content as require_content
from jobs.report.page.render import render as render
from jobs.report.page.several import several as several
