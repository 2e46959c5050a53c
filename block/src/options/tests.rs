use proptest::prelude::*;

use super::*;

crate::options! {
    /// Cache.
    struct Cache {
        /// Bypass.
        direct: bool = false,
        /// Never flush.
        no_flush: bool = false,
    }
}

crate::options! {
    /// What to do.
    enum Discard {
        /// Nothing.
        Ignore = "ignore" | "off",
        /// Something.
        Unmap = "unmap" | "on",
    }
}

crate::options! {
    /// A node of the tests.
    struct Node {
        /// The file.
        filename: String,
        /// Its length.
        size: Size = Size(512),
        /// Cache.
        cache: Option<Cache> = None,
        /// Discard.
        discard: Discard = Discard::Ignore,
        /// A name that is a keyword elsewhere, with an older spelling.
        read_only as "read-only" | "readonly": bool = false,
        /// Queues.
        queues: Vec<u16> = Vec::new(),
    }
}

fn text(input: &str) -> Result<Node, Error> {
    from_tree(Tree::parse_keyval(input, None)?)
}

fn json(input: &str) -> Result<Node, Error> {
    from_tree(Tree::parse_json(input)?)
}

fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn text_and_json_give_the_same_structure() {
    let expected = Node {
        filename: "a,b=c".into(),
        size: Size(1536),
        cache: Some(Cache {
            direct: true,
            no_flush: false,
        }),
        discard: Discard::Unmap,
        read_only: true,
        queues: vec![1, 0x10],
    };
    let line =
        "filename=a,,b=c,size=1.5k,cache.direct=yes,discard=on,readonly,queues.1=0x10,queues.0=1";
    assert_eq!(text(line).unwrap(), expected);
    let same = r#"{"filename":"a,b=c","size":1536,"cache":{"direct":true},"discard":"unmap","read-only":true,"queues":[1,16]}"#;
    assert_eq!(json(same).unwrap(), expected);
    assert_eq!(
        Tree::parse(same, None).unwrap(),
        Tree::parse_json(same).unwrap()
    );
    assert_eq!(from_tree::<Node>(expected.to_tree()).unwrap(), expected);
}

#[test]
fn errors_speak_the_users_path() {
    let cases = [
        (
            "filename=x,cache.direct=maybe",
            "'cache.direct': expected on or off, got 'maybe'",
        ),
        (
            "filename=x,cache.driect=on",
            "'cache.driect': unknown option; did you mean 'direct'?",
        ),
        (
            "filename=x,zzz=1",
            "'zzz': unknown option; there are filename, size, cache, discard, read-only, queues",
        ),
        ("size=1", "'filename': must be given"),
        (
            "filename=x,discard=unmpa",
            "'discard': expected ignore, unmap, got 'unmpa'; did you mean 'unmap'?",
        ),
        (
            "filename=x,queues.0=70000",
            "'queues.0': expected a number from 0 to 65535, got '70000'",
        ),
        (
            "filename=x,queues.1=1",
            "'queues': index 0 of the list is missing",
        ),
        (
            "filename=x,queues.0=1,queues.a=1",
            "'queues': mixes list indices and names",
        ),
        (
            "filename=x,readonly=on,read-only=on",
            "'readonly': means the same as 'read-only': give one of them",
        ),
        (
            "filename=x,cache=none",
            "'cache': expected members (key=value), got 'none'",
        ),
        (
            "filename=x,cache=a,cache.direct=on",
            "'cache.direct': 'cache' cannot have both a value and members",
        ),
        (
            "filename=x,cache.direct=on,cache=a",
            "'cache': 'cache' cannot have both a value and members",
        ),
        (
            "filename=x,filename=y",
            "'filename': is given twice; give it once",
        ),
        (
            "filename=x,cache.direct=on,cache.direct=on",
            "'cache.direct': is given twice; give it once",
        ),
        ("filename=x,a..b=1", "'a..b': is not the name of an option"),
        ("filename=x,,y,", "'filename': must be given"),
        ("=x", "an option's name is missing"),
    ];
    for (input, expected) in cases {
        let got = text(input);
        if input == "filename=x,,y," {
            assert_eq!(got.unwrap().filename, "x,y");
        } else {
            assert_eq!(message(got), expected, "{input}");
        }
    }
}

#[test]
fn json_is_typed_and_its_keys_unique() {
    assert_eq!(
        message(json(r#"{"filename":"x","read-only":"on"}"#)),
        "'read-only': expected true or false, got 'on'"
    );
    assert_eq!(
        message(json(r#"{"filename":"x","size":"1k"}"#)),
        "'size': expected a size, got '1k'"
    );
    assert_eq!(
        message(json(r#"{"filename":"x","size":-1}"#)),
        "'size': expected a size, got -1"
    );
    assert_eq!(
        message(json(r#"{"filename":5}"#)),
        "'filename': expected text, got 5"
    );
    assert!(
        message(json(r#"{"filename":"x","filename":"y"}"#))
            .contains("the key 'filename' is given twice")
    );
    assert!(message(json("[]")).contains("expected a JSON object"));
    assert!(message(json(&"[".repeat(100_000))).contains("not valid JSON"));
}

#[test]
fn the_first_value_may_have_an_implied_key() {
    let tree = Tree::parse_keyval("virtio-blk-pci,drive=d0", Some("driver")).unwrap();
    assert_eq!(
        tree.get("driver"),
        Some(&Tree::Text("virtio-blk-pci".into()))
    );
    assert_eq!(tree.get("drive"), Some(&Tree::Text("d0".into())));
    let tree = Tree::parse_keyval("a,,b=c,on", Some("file")).unwrap();
    assert_eq!(tree.get("file"), Some(&Tree::Text("a,b=c".into())));
    assert_eq!(tree.get("on"), Some(&Tree::Text("on".into())));
}

#[test]
fn sizes() {
    let good = [
        ("0", 0),
        ("4096", 4096),
        ("0x1000", 4096),
        ("512b", 512),
        ("64k", 65536),
        ("1.5G", 3 << 29),
        ("0.5K", 512),
        ("16E", u64::MAX),
        ("15.999999999999999999E", 0),
        ("3P", 3 << 50),
        ("18446744073709551615", u64::MAX),
    ];
    for (input, bytes) in good {
        match input {
            "16E" => assert!(parse_size(input, 1).is_err()),
            "15.999999999999999999E" => assert!(parse_size(input, 1).unwrap() > 15 << 60),
            _ => assert_eq!(parse_size(input, 1).unwrap(), bytes, "{input}"),
        }
    }
    assert_eq!(parse_size("512", 1 << 20).unwrap(), 512 << 20);
    for bad in [
        "",
        "k",
        ".5k",
        "1.k",
        "1.5",
        "-1",
        "+1",
        "1kk",
        "1 k",
        "0x",
        "0x+1",
        "18446744073709551616",
        "1e3",
        "é",
    ] {
        assert!(parse_size(bad, 1).is_err(), "{bad}");
    }
}

#[test]
fn the_nearest_name_is_one_slip_away() {
    let names = ["cache", "format", "file", "read-only", "virtio-blk-pci"];
    assert_eq!(nearest("fromat", names), Some("format"));
    assert_eq!(nearest("read_onyl", names), Some("read-only"));
    assert_eq!(nearest("virtio-blk", names), Some("virtio-blk-pci"));
    assert_eq!(nearest("throttle", names), None);
    assert_eq!(nearest("x", names), None);
    assert_eq!(nearest(&"f".repeat(1 << 20), names), None);
}

#[test]
fn the_schema_tells_keys_defaults_and_words() {
    let schema = Node::SCHEMA;
    assert_eq!(schema.doc, " A node of the tests.\n");
    assert_eq!(
        schema.keys().collect::<Vec<_>>(),
        [
            "filename",
            "size",
            "cache",
            "discard",
            "read-only",
            "queues"
        ]
    );
    assert_eq!(schema.field("readonly").unwrap().key, "read-only");
    assert!(schema.field("filename").unwrap().default.is_none());
    assert_eq!(
        schema.field("size").unwrap().default.unwrap()(),
        Tree::Int(512)
    );
    assert_eq!(
        schema.field("discard").unwrap().kind.describe(),
        "ignore|unmap"
    );
    let Kind::Object(cache) = schema.field("cache").unwrap().kind else {
        panic!("cache has members")
    };
    assert_eq!(cache.keys().collect::<Vec<_>>(), ["direct", "no-flush"]);
}

fn leaf() -> impl Strategy<Value = Tree> {
    "[ -~é]{0,8}".prop_map(Tree::Text)
}

fn tree() -> impl Strategy<Value = Tree> {
    leaf().prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..4).prop_map(Tree::List),
            proptest::collection::btree_map("[a-z][a-z0-9_-]{0,6}", inner, 1..4)
                .prop_map(|map| Tree::Map(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn printing_and_reading_gives_the_same_tree(map in proptest::collection::btree_map("[a-z][a-z0-9-]{0,6}", tree(), 0..4)) {
        let tree = Tree::Map(map.into_iter().collect());
        prop_assert_eq!(Tree::parse_keyval(&tree.to_keyval(), None).unwrap(), tree);
    }

    #[test]
    fn no_text_makes_the_parser_panic(input in "\\PC{0,64}", dots in "[a-c0-2.,=]{0,64}") {
        for text in [&input, &dots] {
            let _ = Tree::parse(text, Some("driver")).map(from_tree::<Node>);
            let _ = Tree::parse_json(text);
            let _ = parse_size(text, 1);
        }
    }
}

#[test]
fn what_two_structs_share_is_named_once() {
    let tree = Tree::parse_keyval("zzz=1", None).unwrap();
    let error = check_keys(&tree, &[Node::SCHEMA, Cache::SCHEMA, Node::SCHEMA]).unwrap_err();
    let expected = "'zzz': unknown option; there are filename, size, cache, discard, read-only, queues, direct, no-flush";
    assert_eq!(error.to_string(), expected);
}
