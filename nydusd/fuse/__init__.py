"""Carries requests between a kernel and fs; knows no file system."""
