"""One module a notebook: its figures and its claims. Only notebooks import them."""
