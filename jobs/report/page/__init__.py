"""The page of a store: one HTML file with its run, failures, plots and tables, which needs no network and no server.

    content    everything on the page, as JSON           facts    counts, times, hosts, failures, logs
    rows       a group's results, read when indexed      encode   plots and tables as JSON of bounded size
    pictures   plots that a store keeps for readers who do not run its kernel
    live       curves of running shards                  several  the contents of several stores as one
    together   plots of several groups or stores as one
    render     the HTML around the JSON                  assets/  its HTML, CSS and JavaScript

The page's script inserts the JSON as text, never as markup, so that names and traces cannot inject any.
"""

from jobs.report.page.content import EMPTY as EMPTY
from jobs.report.page.content import Content as Content
from jobs.report.page.content import require_content as require_content
from jobs.report.page.render import render as render
from jobs.report.page.several import several as several
