"""Tests of the preparation."""
