"""Trained models evaluated, plotted, used on photographs and exported."""
