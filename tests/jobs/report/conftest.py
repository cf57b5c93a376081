"""Pages in a real Chromium, which complain of nothing and ask nobody."""

import pytest
from page_stores import browser, finished, until

from jobs.report import sweep
from jobs.report.page import Content, render


@pytest.fixture(scope="module")
def chromium():
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """name -> (store, the address of its page), made when it is asked for."""

    class Pages(dict):
        def __missing__(self, name):
            store = finished(name)
            path = tmp_path_factory.mktemp(name) / "page.html"
            # Small stores have parallel coordinates, too.
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sweep, "FEWEST_PARALLEL", 2)
                path.write_text(render(Content(store).all()), encoding="utf-8")
            self[name] = store, path.as_uri()
            return self[name]

    return Pages()


@pytest.fixture(scope="module")
def tab(chromium):
    """The tests' one tab, in which each loads its page anew: a process for each would take most of the time."""
    return chromium.new_page()


@pytest.fixture
def visit(tab, pages, tmp_path):
    """Open the page of a store by name, or that of a content; whatever it complains of or asks for must be nothing at the end."""
    trouble, addresses = [], []
    heard = {
        "console": lambda message: trouble.append(message.text),
        "pageerror": lambda error: trouble.append(str(error)),
        "request": lambda r: None if r.url in addresses else trouble.append(r.url),
    }
    for event, listener in heard.items():
        tab.on(event, listener)

    def open_page(what, width=1280, scheme="light"):
        if isinstance(what, str):
            addresses.append(pages[what][1])
        else:
            (path := tmp_path / "page.html").write_text(render(what), encoding="utf-8")
            addresses.append(path.as_uri())
        tab.mouse.move(0, 0)
        tab.set_viewport_size({"width": width, "height": 900})
        tab.emulate_media(color_scheme=scheme)
        tab.goto(addresses[-1])
        until(tab, "FIGURES.size > 0 && [...FIGURES].every((f) => f.box)")
        return tab

    yield open_page
    for event, listener in heard.items():
        tab.remove_listener(event, listener)
    # A picture in the page itself is no request to anybody.
    assert [t for t in trouble if not t.startswith("data:")] == []
