"""Tools for the course's notebooks: build them, run them, and open them on Colab."""
