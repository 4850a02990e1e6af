def pytest_collectstart(collector):
    """Notebooks: compare printed text only; HTML repeats it, stderr holds progress bars."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("text/html", "stderr")
