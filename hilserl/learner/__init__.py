"""The learner process: takes in experience, owes updates, publishes weights."""
