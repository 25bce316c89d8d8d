"""Measurements that claims rest on; none of them is a test."""
