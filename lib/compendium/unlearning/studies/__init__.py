"""One module per notebook or stage of the section, under its name; nothing but these imports it."""
