"""Schemas of the kinds that public collections have (objects, nesting, enums, patterns, references, unions, bounds, arrays …),
all written for this test: `ACCEPTED` are to be honoured, `REFUSED` refused with the keyword named."""


def thing(**properties):
    """An object that has all of these and nothing else."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def text(most, least=0):
    return {"type": "string", "minLength": least, "maxLength": most}


def whole(least, most):
    return {"type": "integer", "minimum": least, "maximum": most}


def listed(items, most, least=0):
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


COLOURS = ["red", "green", "blue", "black", "white", "orange", "violet", "grey", "pink", "brown"]
NAMES = ["name", "city", "title", "street", "country", "label", "owner", "genre", "brand", "crew"]


def objects():
    for index, name in enumerate(NAMES):
        yield thing(**{name: text(8 + index)})
    for index, name in enumerate(NAMES):
        yield {"type": "object", "properties": {name: text(6), "count": whole(0, 10 + index)}, "required": [name],
               "additionalProperties": False}


def nested():
    for depth in range(1, 11):
        schema = thing(leaf={"type": "boolean"})
        for level in range(depth):
            schema = thing(**{f"level{level}": schema})
        yield schema
    for width in range(1, 6):
        yield thing(**{f"part{index}": thing(on={"type": "boolean"}) for index in range(width)})
        yield listed(thing(id=whole(0, width), ok={"type": "boolean"}), 2, 1)


def enums():
    for count in range(1, 11):
        yield {"enum": COLOURS[:count]}
    for value in ["exactly", 7, -1.5, True, False, None, [], [1, 2, 3], {"a": 1}, {"b": [None, {"c": "d"}]}]:
        yield thing(value={"const": value})
    yield {"type": "string", "enum": ["caf\u00e9", "na\u00efve", "\u65e5\u672c", "\u20ac", "\U0001f642"]}
    yield {"enum": [1, "1", True, None, [1], {"1": 1}]}
    yield {"enum": ['a "quoted" word', "a\\backslash", "a\nline", "a\ttab", "</end>", "<|im_end|>"]}
    yield {"enum": [0, 10, 100, 1000, 10000]}


def patterns():
    for pattern in [
        "^[a-z]{3}$", "^[A-Z][a-z]{2,5}$", "^\\d{4}-\\d{2}-\\d{2}$", "^(yes|no|maybe)$", "^[0-9a-f]{8}$",
        "^#[0-9A-F]{6}$", "^[A-Z]{2}[0-9]{4}$", "^v[0-9]+\\.[0-9]+$", "^(?:[01][0-9]|2[0-3]):[0-5][0-9]$",
        "^[a-z]+@[a-z]+\\.(com|org)$", "^\\+[1-9][0-9]{6,10}$", "^[^\\s]{1,6}$", "^a{2,4}b{1,3}$", "^$|^x+y$",
        "^([A-Z]-){2}[A-Z]$", "^[\u00e0-\u00ff]{2,4}$",
    ]:
        yield thing(code={"type": "string", "pattern": pattern, "maxLength": 24})
    for kind in ["date", "time", "date-time", "uuid", "ipv4", "email"]:
        yield thing(value={"type": "string", "format": kind, "maxLength": 40})


def references():
    yield {"$defs": {"point": thing(x=whole(0, 9), y=whole(0, 9))}, "$ref": "#/$defs/point"}
    yield {"definitions": {"flag": {"type": "boolean"}}, **thing(a={"$ref": "#/definitions/flag"})}
    tree = thing(value=whole(0, 9), children=listed({"$ref": "#/$defs/tree"}, 1))
    yield {"$defs": {"tree": tree}, "$ref": "#/$defs/tree"}
    chain = thing(value=whole(0, 5), next={"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]})
    yield {"$defs": {"node": chain}, "$ref": "#/$defs/node"}
    yield {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/c"}, "c": {"enum": [1, 2]}},
           **thing(v={"$ref": "#/$defs/a"})}
    for count in range(1, 8):
        yield {"$defs": {"item": {"enum": COLOURS[:count]}},
               **thing(**{f"p{index}": {"$ref": "#/$defs/item"} for index in range(count)})}
    for count in range(1, 3):
        yield {"$defs": {"pair": listed({"type": "boolean"}, count)}, **thing(v={"$ref": "#/$defs/pair"})}


def unions():
    for left, right in [
        ({"type": "boolean"}, {"type": "null"}), (whole(0, 9), text(4)), ({"enum": ["a"]}, {"enum": [1]}),
        (thing(a=whole(0, 3)), thing(b=text(3))), (listed({"type": "boolean"}, 2), {"type": "null"}),
        ({"const": "on"}, {"const": "off"}), (thing(k={"const": 1}), thing(k={"const": 2}, v=text(4))),
    ]:
        yield {"anyOf": [left, right]}
        yield {"oneOf": [left, right]}
        yield thing(either={"anyOf": [left, right]})
    yield {"type": ["boolean", "null"]}
    yield thing(v={"type": ["integer", "null"], "minimum": 0, "maximum": 20})
    yield {"allOf": [{"type": "object", "properties": {"a": whole(0, 3)}, "required": ["a"]},
                     {"properties": {"b": {"type": "boolean"}}, "required": ["b"], "additionalProperties": True}],
           "maxProperties": 2}
    yield {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 6}]}
    shapes = [thing(kind={"const": name}, size=whole(1, 9)) for name in ("circle", "square", "line")]
    yield {"oneOf": shapes}
    yield listed({"anyOf": shapes}, 2, 1)


def numbers():
    for least, most in [(0, 1), (0, 9), (-5, 5), (10, 99), (100, 999), (-1000, -990), (7, 7), (0, 255), (1900, 2100),
                        (-1, 1000000)]:
        yield thing(n=whole(least, most))
    for least, most in [(0, 1), (-1, 1), (0.5, 2.5), (10, 20), (-0.25, 0.25)]:
        yield thing(n={"type": "number", "minimum": least, "maximum": most})
        yield thing(n={"type": "number", "exclusiveMinimum": least, "exclusiveMaximum": most})
    for step in [2, 5, 10, 25]:
        yield thing(n={"type": "integer", "multipleOf": step, "minimum": 0, "maximum": 1000})
    yield thing(n={"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5})


def arrays():
    for least, most in [(0, 0), (0, 1), (1, 1), (2, 2), (1, 3), (3, 5), (4, 4)]:
        yield listed(whole(0, 9), most, least)
        yield thing(tags=listed({"enum": COLOURS[:3]}, most, least))
    yield {"type": "array", "prefixItems": [whole(0, 9), {"type": "boolean"}], "items": False, "minItems": 2}
    yield {"type": "array", "prefixItems": [{"const": "first"}], "items": whole(0, 1), "minItems": 1, "maxItems": 3}
    yield listed(listed(whole(0, 1), 2, 2), 2, 2)
    yield listed({"type": "null"}, 4, 2)
    yield listed(text(5), 3, 1)


def strings():
    for least, most in [(0, 0), (1, 1), (0, 5), (3, 3), (2, 12), (10, 20)]:
        yield text(most, least)
        yield thing(word=text(most, least))


def maps():
    yield {"type": "object", "additionalProperties": whole(0, 5), "maxProperties": 2, "minProperties": 1}
    yield {"type": "object", "patternProperties": {"^k[0-9]$": {"type": "boolean"}}, "additionalProperties": False,
           "maxProperties": 2}
    yield {"type": "object", "properties": {"id": whole(0, 9)}, "required": ["id"],
           "additionalProperties": {"enum": ["x", "y"]}, "maxProperties": 2}
    yield {"type": "object", "maxProperties": 0}
    yield {"title": "Annotated", "description": "Only words.", "$comment": "c", "default": {}, "examples": [{}],
           "$schema": "https://json-schema.org/draft/2020-12/schema", **thing(a={"type": "boolean", "title": "A"})}


def whole_documents():
    money = {"type": "number", "minimum": 0, "maximum": 999}
    yield thing(name=text(10, 1), age=whole(0, 120), email={"type": "string", "pattern": "^[a-z]{2,8}@[a-z]{2,8}\\.org$"})
    yield thing(city=text(10), celsius=whole(-40, 50), sky={"enum": ["clear", "cloudy", "rain"]})
    yield thing(total=money, lines=listed(thing(sku={"type": "string", "pattern": "^[A-Z]{3}$"}, amount=whole(1, 9)), 2, 1))
    yield thing(answer={"enum": ["A", "B", "C", "D"]}, sure={"type": "boolean"})
    yield thing(sentiment={"enum": ["good", "bad", "neither"]}, score={"type": "number", "minimum": -1, "maximum": 1})
    yield thing(function={"const": "search"}, arguments=thing(query=text(12), limit=whole(1, 10)))
    yield thing(start={"type": "string", "format": "date"}, days=whole(1, 30))
    yield thing(entities=listed(thing(text=text(8), label={"enum": ["person", "place"]}), 2))
    yield thing(steps=listed(text(8), 3, 1), done={"type": "boolean"})
    yield thing(user=thing(id=whole(1, 99), roles=listed({"enum": ["admin", "guest"]}, 2)), active={"type": "boolean"})
    yield thing(matrix=listed(listed(whole(0, 1), 3, 3), 2, 2))
    yield thing(title=text(12), year=whole(1900, 2030), tags=listed({"enum": COLOURS}, 2), rating={"type": ["integer", "null"]})
    yield thing(**{"key with spaces": whole(0, 1), "key-with-\"quotes\"": {"type": "boolean"}, "\u00e9t\u00e9": {"type": "null"}})
    yield thing(bounds=thing(low=whole(0, 4), high=whole(5, 9)), unit={"enum": ["m", "km"]})


ACCEPTED = [
    (kind.__name__, schema)
    for kind in (objects, nested, enums, patterns, references, unions, numbers, arrays, strings, maps, whole_documents)
    for schema in kind()
]

# (a schema, the word that the refusal must have in it)
REFUSED = [
    ({"not": {"type": "string"}}, "not"),
    (thing(a={"not": {"const": 1}}), "not"),
    ({"if": {"type": "string"}, "then": {"maxLength": 3}, "else": True}, "if"),
    ({"type": "array", "contains": {"const": 1}}, "contains"),
    ({"type": "array", "items": whole(0, 9), "uniqueItems": True}, "uniqueItems"),
    ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
    ({"type": "object", "dependentSchemas": {"a": {"required": ["b"]}}}, "dependentSchemas"),
    ({"type": "object", "propertyNames": {"pattern": "^a"}}, "propertyNames"),
    ({"type": "object", "unevaluatedProperties": False}, "unevaluatedProperties"),
    ({"type": "array", "unevaluatedItems": False}, "unevaluatedItems"),
    ({"$ref": "https://example.com/schema.json"}, "$ref"),
    ({"$ref": "#/$defs/missing"}, "$ref"),
    ({"$ref": 7}, "$ref"),
    # Pointers whose names are escaped are not followed.
    ({"$defs": {"a/b": {"enum": ["p"]}}, **thing(v={"$ref": "#/$defs/a~1b"})}, "$ref"),
    ({"$defs": {"per%cent": {"enum": ["p"]}}, **thing(v={"$ref": "#/$defs/per%25cent"})}, "$ref"),
    ({"$dynamicRef": "#node"}, "$dynamicRef"),
    ({"oneOf": [whole(0, 9), whole(5, 20)]}, "oneOf"),
    ({"type": "string", "format": "no-such-format"}, "format"),
    ({"type": "string", "pattern": "(?=a)b"}, "pattern"),
    ({"type": "string", "pattern": "("}, "pattern"),
    ({"type": "string", "pattern": 3}, "pattern"),
    ({"type": "text"}, "type"),
    ({"type": 3}, "type"),
    ({"type": "object", "properties": []}, "properties"),
    ({"type": "object", "required": "a"}, "required"),
    ({"enum": "a"}, "enum"),
    ({"anyOf": {}}, "anyOf"),
    ({"allOf": 1}, "allOf"),
    ({"type": "integer", "minimum": "0"}, "minimum"),
    ({"type": "integer", "minimum": 5, "maximum": 4}, "minimum"),
    ({"type": "string", "minLength": 5, "maxLength": 4}, "minLength"),
    ({"type": "array", "minItems": 5, "maxItems": 4}, "minItems"),
    ({"type": "integer", "multipleOf": 0}, "multipleOf"),
    ({"x-guidance": {"lenient": True}, "not": {}}, "x-guidance"),
    ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "schema"),
    ({"type": "array", "minLength": "x", "items": 7}, "schema"),
]
