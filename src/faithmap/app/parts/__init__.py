"""The small parts of the page that Gradio does not have; each is a class, a script and some style."""
