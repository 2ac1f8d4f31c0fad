"""A payment service and a carrier for development and tests. They fail as asked, by magic amounts."""
