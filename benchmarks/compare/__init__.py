"""Excitation pullbacks against Captum's other methods: methods x metrics x networks."""
