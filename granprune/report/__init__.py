"""What runs say together: a tidy table, statistics, figures and a page."""
