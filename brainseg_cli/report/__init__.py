"""What eval writes for people: one HTML page that needs nothing else, and Markdown for a pull request."""
