"""The viewer: maps on a photograph, and the games that are played with them, all in the browser."""
