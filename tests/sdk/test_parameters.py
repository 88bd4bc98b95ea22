"""Whether the table of parameters has every field of the requests of the pinned SDK."""

import importlib
import json
import pathlib
import unittest

TABLES = pathlib.Path(__file__).parent.parent / "parameters"


def fields(module, names):
    """The fields of some typed dictionaries, inherited ones too."""
    module = importlib.import_module(module)
    classes = [getattr(module, name) for name in names]
    return {field for one in classes for field in one.__required_keys__ | one.__optional_keys__}


class Parameters(unittest.TestCase):
    """One table for each request."""

    def test_no_field_is_missing(self):
        tables = [json.loads(path.read_text()) for path in sorted(TABLES.glob("*.json"))]
        self.assertGreater(len(tables), 1)
        for table in tables:
            known = fields(table["module"], table["classes"])
            self.assertGreater(len(known), 4)
            rows = {row["field"] for row in table["fields"]}
            self.assertEqual(known - rows, set(), table["path"])


if __name__ == "__main__":
    unittest.main()
