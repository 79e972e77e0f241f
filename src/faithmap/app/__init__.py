"""The web page: photographs are explained, tested and compared without code. A thin layer over the studies."""
