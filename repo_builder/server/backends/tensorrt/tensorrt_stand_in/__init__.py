"""What the tensorrt stand-in is made of; ``model.py`` beside this folder is what the server calls."""
