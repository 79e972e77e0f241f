"""The viewer: maps on a photograph, and deletion and insertion step by step, all in the browser."""
