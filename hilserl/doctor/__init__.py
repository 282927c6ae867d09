"""Is this arm ready to learn? What a careful person looks at before the first motion, as a list with remedies."""
