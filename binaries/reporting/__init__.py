"""What a comparison found, as text, tables, figures and a page.

`results` reads the folder of a comparison and `estimates` has the statistics
over seeds; `tables`, `figures` and `findings` show them, and `page` writes all.
"""
