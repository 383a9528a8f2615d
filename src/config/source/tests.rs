use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    items: Vec<Item>,
    #[serde(default)]
    names: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    name: String,
    count: Option<u32>,
    #[serde(default)]
    is_on: bool,
    word: Option<Choice>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Choice {
    One,
    Above(f64),
}

fn lines(text: &str) -> (Option<File>, Vec<String>) {
    let mut source = Source::from_text(text);
    let file = source.read();
    let said = source.error(Vec::new()).to_string();
    (file, said.lines().map(str::to_owned).collect())
}

#[test]
fn a_good_file_is_read_without_a_word() {
    let (file, said) = lines("items: [{name: a, count: 0x10, is_on: yes, word: {above: 1}}, {name: b}]");
    let file = file.expect("read");
    assert_eq!((file.items.len(), file.items[0].count, said), (2, Some(16), Vec::<String>::new()));
    assert_eq!((file.items[0].is_on, file.items[0].word.as_ref()), (true, Some(&Choice::Above(1.0))));
}

#[test]
fn what_is_wrong_does_not_hide_the_rest() {
    let text = "
items:
  - nam: a
    count: many
  - count: -1
    name: [x]
    is_on: 7
    word: {below: 1}
    colour: red
  - name: last
    word: above
names:
  a: 1
  b: {}
names: 3
";
    let (file, said) = lines(text);
    let file = file.expect("the rest");
    assert_eq!(
        (file.items[0].name.as_str(), file.items[2].name.as_str()),
        ("a", "last"),
        "and the word that was meant"
    );
    assert_eq!(file.names["a"], "1");
    assert_eq!(
        said,
        [
            "3:5:  items[0].nam: is not known; did you mean name?",
            "4:12: items[0].count: is \"many\", and must be a whole number, not negative",
            "5:12: items[1].count: is \"-1\", and must be a whole number, not negative",
            "6:5:  items[1].name: is a list, and must be text",
            "7:12: items[1].is_on: is \"7\", and must be true or false",
            "8:5:  items[1].word: has the key \"below\"; write one of: one, above",
            "9:5:  items[1].colour: is not known; possible: name, count, is_on, word",
            "11:11: items[2].word: is \"above\", which needs a value behind it",
            "14:3: names.b: is a mapping, and must be text",
            "15:1: names: is there twice; the first one is in line 12",
        ]
        .map(|line| {
            let (place, rest) = line.split_once(' ').expect("a place");
            format!("{place:6} {}", rest.trim_start())
        })
    );
}

#[test]
fn what_is_missing_is_told_once() {
    let mut source = Source::from_text("items:\n  - {count: 1}\n");
    let file: File = source.read().expect("the rest");
    assert_eq!(file.items[0].name, "");
    let of_meaning = |at: &str| Problem { at: at.to_owned(), place: None, what: "must not be empty".to_owned() };
    let error = source.error(vec![of_meaning("items[0].name"), of_meaning("items[0].count"), of_meaning("items")]);
    assert_eq!(
        error.to_string(),
        "1:1:  items: must not be empty\n2:5:  items[0].name: is missing\n2:13: items[0].count: must not be empty"
    );
}

#[test]
fn aliases_and_merged_keys_are_followed_and_bounded() {
    let (file, said) = lines("items:\n  - &a {name: a, count: 3}\n  - {<<: *a, name: b, count: x}\n  - *a\n");
    assert_eq!(said, ["3:30: items[1].count: is \"x\", and must be a whole number, not negative"]);
    assert_eq!(file.expect("the rest").items[2].count, Some(3));
    let mut bomb = "a: &a0 [x]\n".to_owned();
    for level in 1..30 {
        let before = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb += &["a", &level.to_string(), ": &a", &level.to_string(), " [", &before, "]\n"].concat();
    }
    let (file, said) = lines(&bomb);
    assert!(file.is_none() && said.len() == 1 && said[0].contains("aliases"), "{said:?}");
}

#[test]
fn more_than_can_be_read_at_once_is_cut() {
    let items = (0..200).fold("items:\n".to_owned(), |all, n| all + &format!("  - {{name: a, key_{n}: 1}}\n"));
    let (_, said) = lines(&items);
    assert_eq!(said.len(), 51);
    assert!(said[50].ends_with("and perhaps more, to be seen once these are mended"), "{said:?}");
    let (_, said) = lines(&("[".repeat(100_000) + &"]".repeat(100_000)));
    assert_eq!(said.len(), 1, "{said:?}");
}
