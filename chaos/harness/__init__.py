"""What make chaos consists of: a system with links that can be broken, a load, a nemesis, a checker."""
