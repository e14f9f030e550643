"""The paper's tables and figures: its numbers, the runs behind them, the page."""
