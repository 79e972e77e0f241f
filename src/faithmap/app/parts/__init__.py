"""Small parts of the page that Gradio does not have; each is a class and a script."""
