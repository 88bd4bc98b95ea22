//! Tasks whose answers repeat much of what was asked: edits, quotations and summaries. Each is a task and the text that it
//! is about. Written for this.

/// What a user of an editor asks all day.
pub const EDITS: [(&str, &str); 12] = [
    (
        "Rename the variable `total` to `sum` in this code. Answer with the whole code.",
        "def average(values):\n    total = 0\n    for value in values:\n        total = total + value\n    if len(values) == 0:\n        return 0\n    return total / len(values)\n",
    ),
    (
        "Rename the function `load` to `read_settings` in this code. Answer with the whole code.",
        "import json\n\ndef load(path):\n    with open(path) as file:\n        settings = json.load(file)\n    return settings\n\nfirst = load('first.json')\nsecond = load('second.json')\nprint(first, second)\n",
    ),
    (
        "Add a comment to the first line of this function and repeat the rest as it is.",
        "fn largest(values: &[i64]) -> Option<i64> {\n    let mut best = None;\n    for value in values {\n        if best.is_none() || best < Some(*value) {\n            best = Some(*value);\n        }\n    }\n    best\n}\n",
    ),
    (
        "Replace every `print` by `log.info` in this code. Answer with the whole code.",
        "def deliver(orders):\n    print('starting')\n    for order in orders:\n        print('sending', order.number)\n        order.send()\n        print('sent', order.number)\n    print('all orders are sent')\n",
    ),
    (
        "Correct the spelling in this paragraph. Change nothing else, and answer with the whole paragraph.",
        "The libary opens at nine in the morning and closes at six in the evening. On Saturdays it opens at ten. Books may be borowed for three weeks, and each can be renewed twice unless somebody else has asked for it. Whoever looses a book pays for a new one.",
    ),
    (
        "Correct the spelling in this letter. Change nothing else, and answer with the whole letter.",
        "Dear Mrs. Holm, thank you for the parcel that arived on Tuesday. The lamp is beautiful and already stands in the kitchen, where it gives a warm light in the evening. We would be glad if you came to visit us in the sumer. With kind regards, Peter and Anna.",
    ),
    (
        "Put this text into the past tense. Answer with the whole text.",
        "The farmer gets up at five and feeds the horses. Then he drives to the market and sells apples and potatoes. At noon he eats bread and cheese with the other farmers. In the afternoon he drives home, mends the fence and waters the garden.",
    ),
    (
        "Quote the two sentences of this text that speak of the bridge, word for word.",
        "The village lies on both banks of the river. The old bridge was built of stone two hundred years ago. In spring the water rises up to the gardens of the lower street. The bridge has three arches and carries only people and bicycles. Cars take the road by the mill.",
    ),
    (
        "List all lines of this log that contain the word ERROR, word for word.",
        "10:02:11 INFO the server is ready\n10:02:15 INFO a client has connected\n10:02:16 ERROR the request has no name\n10:02:20 INFO a client has connected\n10:02:21 ERROR the file cannot be read\n10:02:22 ERROR the answer was not sent\n10:02:25 INFO the client has left\n",
    ),
    (
        "Write this list with the names in alphabetical order. Keep each line as it is otherwise.",
        "- Walter: twelve chairs and one table\n- Berta: flowers for the windows\n- Konrad: bread, butter and cheese\n- Agnes: the cups from the kitchen\n- Martin: lamps for the garden\n- Doris: music for the evening\n",
    ),
    (
        "Summarise this text in two sentences, using its own words.",
        "The museum shows ships and boats of five centuries. Its largest ship is a fishing boat with two masts that sailed until 1931. Children may climb on board and ring the bell. In the cellar there is a workshop in which old boats are repaired by volunteers. The museum is open every day except Monday, and entry is free on the first Sunday of each month.",
    ),
    (
        "Change the price from 20 to 25 in this offer and repeat everything else word for word.",
        "Offer: one garden chair of oak, with a cushion. Price: 20 each. Delivery takes two weeks. The chair weighs six kilograms and can be folded. Whoever orders four chairs at the price of 20 each pays nothing for the delivery. This offer ends on the last day of the month.",
    ),
];
