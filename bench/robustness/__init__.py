"""Searches under pressure: budgets that have to be kept, and processes that are killed."""
