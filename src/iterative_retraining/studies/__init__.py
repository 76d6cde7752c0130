"""What only the book needs, apart from the core: theory, distributions in the plane, reports, figures."""
