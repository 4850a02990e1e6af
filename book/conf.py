"""Configuration of the book; `make book` copies it beside the pages that tools/book.py writes."""

import os

project = "Beyond Behaviour"
author = "The Beyond Behaviour authors"
html_title = "Beyond Behaviour"
extensions = ["myst_nb", "sphinx_design", "sphinxcontrib.bibtex", "sphinx_copybutton", "sphinx-mathjax-offline"]
myst_enable_extensions = ["colon_fence", "dollarmath", "attrs_inline", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_merge_streams = True
bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "unsrt"
html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_js_files = ["scorecard.js"]
html_copy_source = False
html_show_copyright = False
html_context = {"default_mode": "auto"}
html_last_updated_fmt = None
exclude_patterns = ["_build"]
suppress_warnings = ["mystnb.unknown_mime_type"]
repository = os.environ.get("COMPENDIUM_REPOSITORY", "")  # owner/name; gives each page its launch buttons
html_theme_options = {
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "article_header_end": ["search-button"],
}
if repository:
    html_theme_options |= {
        "repository_url": f"https://github.com/{repository}",
        "use_repository_button": True,
        "launch_buttons": {"binderhub_url": "https://mybinder.org", "colab_url": "https://colab.research.google.com"},
    }
