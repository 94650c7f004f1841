"""The site's settings for Sphinx, read by tools/site.py; the pages are in out/docs-source by then."""

from importlib import metadata

project = "ipybatch"
author = "The ipybatch authors"
version = release = metadata.version("ipybatch")
extensions = ["myst_nb"]

myst_heading_anchors = 4  # the anchors that GitHub makes, so that a link is the same in both
suppress_warnings = [
    "myst.xref_missing"
]  # it knows no anchors that are HTML; tools/links.py looks at all of them, in the pages
nb_execution_mode = "off"  # the tests run them, with the outputs that are kept

html_theme = "furo"
html_title = "ipybatch"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1565c0", "color-brand-content": "#1565c0"},
    "dark_css_variables": {"color-brand-primary": "#7ab8ff", "color-brand-content": "#7ab8ff"},
    "navigation_with_keys": True,
}
