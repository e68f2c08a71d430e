"""Which cells learn what lies a thousand steps back, and after how many sequences?"""
