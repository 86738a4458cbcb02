"""Routes, one file per room: parse, ask the home one question, answer."""
