"""Engine: the parts that run a session; knows no Jupyter, no HTTP, no pandas."""
