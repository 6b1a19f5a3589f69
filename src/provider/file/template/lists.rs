//! Template functions on lists and dictionaries, with sprig's names and argument order. `split`
//! is Traefik's. Values are copies, so functions that change a dictionary in place are left out.

use std::collections::HashMap;
use std::slice;

use gtmpl_ng::{Func, FuncError, Value, limits};

use super::functions::{Outcome, error, int, is_empty, take, text};

/// All functions of this file.
pub(super) const TABLE: &[(&str, Func)] = &[
    ("list", |args| Ok(Value::Array(args.to_vec()))),
    ("tuple", |args| Ok(Value::Array(args.to_vec()))),
    ("splitn", |args| {
        take(args).map(|[separator, count, value]| split_to_names(separator, count, value))
    }),
    ("chunk", |args| take(args).and_then(|[size, list]| chunks(size, list))),
    ("mustChunk", |args| take(args).and_then(|[size, list]| chunks(size, list))),
    ("all", |args| Ok(args.iter().all(|value| !is_empty(value)).into())),
    ("any", |args| Ok(args.iter().any(|value| !is_empty(value)).into())),
    ("values", |args| {
        take(args).and_then(|[map]| {
            let map = sorted(entries(map)?);
            Ok(map.into_iter().map(|(_, value)| value.clone()).collect::<Vec<_>>().into())
        })
    }),
    ("pick", |args| some(args, |key, keys| keys.contains(key))),
    ("omit", |args| some(args, |key, keys| !keys.contains(key))),
    ("pluck", |args| {
        let Some((key, maps)) = args.split_first() else {
            return Err(FuncError::AtLeastXArgs("pluck".to_owned(), 1));
        };
        let maps = maps.iter().map(entries).collect::<Result<Vec<_>, _>>()?;
        let key = text(key);
        Ok(maps.iter().filter_map(|map| map.get(&key).cloned()).collect::<Vec<_>>().into())
    }),
    ("dig", dig),
    ("merge", |args| merged(args, false)),
    ("mustMerge", |args| merged(args, false)),
    ("mergeOverwrite", |args| merged(args, true)),
    ("mustMergeOverwrite", |args| merged(args, true)),
    ("split", |args| take(args).map(|[value, separator]| split(value, separator))),
    ("splitList", |args| take(args).map(|[separator, value]| split(value, separator))),
    ("join", |args| take(args).map(|[separator, list]| join(separator, list))),
    ("first", |args| {
        take(args).and_then(|[list]| Ok(items(list)?.first().cloned().unwrap_or(Value::Nil)))
    }),
    ("last", |args| {
        take(args).and_then(|[list]| Ok(items(list)?.last().cloned().unwrap_or(Value::Nil)))
    }),
    ("rest", |args| {
        take(args).and_then(|[list]| Ok(items(list)?.get(1..).unwrap_or_default().into()))
    }),
    ("initial", |args| {
        take(args).and_then(|[list]| {
            Ok(items(list)?.split_last().map(|(_, before)| before).unwrap_or_default().into())
        })
    }),
    ("append", |args| {
        take(args)
            .and_then(|[list, item]| Ok([items(list)?, slice::from_ref(item)].concat().into()))
    }),
    ("prepend", |args| {
        take(args)
            .and_then(|[list, item]| Ok([slice::from_ref(item), items(list)?].concat().into()))
    }),
    ("concat", |args| {
        let lists = args.iter().map(items).collect::<Result<Vec<_>, _>>()?;
        Ok(lists.concat().into())
    }),
    ("reverse", |args| {
        take(args)
            .and_then(|[list]| Ok(items(list)?.iter().rev().cloned().collect::<Vec<_>>().into()))
    }),
    ("compact", |args| {
        take(args).and_then(|[list]| {
            let there = items(list)?.iter().filter(|item| !is_empty(item));
            Ok(there.cloned().collect::<Vec<_>>().into())
        })
    }),
    ("uniq", |args| take(args).and_then(|[list]| unique(list))),
    ("has", |args| take(args).and_then(|[item, list]| Ok(items(list)?.contains(item).into()))),
    ("without", |args| {
        let Some((list, gone)) = args.split_first() else {
            return Err(FuncError::AtLeastXArgs("without".to_owned(), 1));
        };
        let there = items(list)?.iter().filter(|item| !gone.contains(item));
        Ok(there.cloned().collect::<Vec<_>>().into())
    }),
    ("sortAlpha", |args| {
        take(args).and_then(|[list]| {
            let mut words: Vec<String> = items(list)?.iter().map(text).collect();
            words.sort();
            Ok(words.into())
        })
    }),
    ("until", |args| {
        take(args).and_then(|[end]| {
            let end = int(end);
            numbers(0, end, if end < 0 { -1 } else { 1 }).map(Value::from)
        })
    }),
    ("untilStep", |args| {
        take(args)
            .and_then(|[from, to, step]| numbers(int(from), int(to), int(step)).map(Value::from))
    }),
    ("seq", sequence),
    ("dict", |args| Ok(dictionary(args))),
    ("get", |args| {
        take(args).and_then(|[map, key]| {
            Ok(entries(map)?.get(&text(key)).cloned().unwrap_or_else(|| "".into()))
        })
    }),
    ("hasKey", |args| {
        take(args).and_then(|[map, key]| Ok(entries(map)?.contains_key(&text(key)).into()))
    }),
    ("keys", |args| {
        let maps = args.iter().map(entries).collect::<Result<Vec<_>, _>>()?;
        let mut keys: Vec<String> = maps.iter().flat_map(|map| map.keys().cloned()).collect();
        // Sorted, because the same template must always give the same text.
        keys.sort();
        Ok(keys.into())
    }),
];

/// Functions of this file that have a second name in sprig, for those who want errors instead of a crash. Here both
/// say their errors.
pub(super) const ALIASES: [(&str, &str); 13] = [
    ("push", "append"),
    ("mustPush", "append"),
    ("mustAppend", "append"),
    ("mustPrepend", "prepend"),
    ("mustFirst", "first"),
    ("mustLast", "last"),
    ("mustRest", "rest"),
    ("mustInitial", "initial"),
    ("mustReverse", "reverse"),
    ("mustCompact", "compact"),
    ("mustUniq", "uniq"),
    ("mustHas", "has"),
    ("mustWithout", "without"),
];

fn items(value: &Value) -> Result<&[Value], FuncError> {
    match value {
        Value::Array(items) => Ok(items),
        Value::Nil | Value::NoValue => Ok(&[]),
        other => Err(FuncError::Generic(format!("`{other}` is not a list"))),
    }
}

fn entries(value: &Value) -> Result<&HashMap<String, Value>, FuncError> {
    match value {
        Value::Map(map) | Value::Object(map) => Ok(map),
        other => Err(FuncError::Generic(format!("`{other}` is not a dictionary"))),
    }
}

/// Entries in the order of their names: the same template must always give the same text.
fn sorted(map: &HashMap<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    entries
}

/// A dictionary with some entries of another.
fn some(args: &[Value], keeps: fn(&String, &[String]) -> bool) -> Outcome {
    let Some((map, keys)) = args.split_first() else {
        return Err(FuncError::AtLeastXArgs("the function".to_owned(), 1));
    };
    let keys: Vec<String> = keys.iter().map(text).collect();
    let kept = entries(map)?.iter().filter(|(key, _)| keeps(key, &keys));
    Ok(Value::Map(kept.map(|(key, value)| (key.clone(), value.clone())).collect()))
}

/// `dig "a" "b" default map`: what stands deep inside of a dictionary.
fn dig(args: &[Value]) -> Outcome {
    let [path @ .., default, map] = args else {
        return Err(FuncError::AtLeastXArgs("dig".to_owned(), 3));
    };
    if path.is_empty() {
        return Err(FuncError::AtLeastXArgs("dig".to_owned(), 3));
    }
    let mut found = map;
    for key in path {
        match entries(found)?.get(&text(key)) {
            Some(inside) => found = inside,
            None => return Ok(default.clone()),
        }
    }
    Ok(found.clone())
}

/// Dictionaries laid over each other. An empty value counts as none.
fn merged(args: &[Value], overwrite: bool) -> Outcome {
    fn lay(map: &mut HashMap<String, Value>, over: &HashMap<String, Value>, overwrite: bool) {
        for (key, value) in over {
            match (map.get_mut(key), value) {
                (
                    Some(Value::Map(inner) | Value::Object(inner)),
                    Value::Map(over) | Value::Object(over),
                ) => lay(inner, over, overwrite),
                (Some(there), value) => {
                    if is_empty(there) || overwrite && !is_empty(value) {
                        value.clone_into(there);
                    }
                }
                (None, value) => {
                    map.insert(key.clone(), value.clone());
                }
            }
        }
    }
    let Some((first, others)) = args.split_first() else {
        return Err(FuncError::AtLeastXArgs("merge".to_owned(), 1));
    };
    let mut map = entries(first)?.clone();
    for over in others {
        lay(&mut map, entries(over)?, overwrite);
    }
    Ok(Value::Map(map))
}

/// Pieces by the names `_0`, `_1` and so on.
fn split_to_names(separator: &Value, count: &Value, value: &Value) -> Value {
    let (value, separator) = (text(value), text(separator));
    let most = match int(count) {
        0 => return Value::Map(HashMap::new()),
        count => usize::try_from(count).unwrap_or(usize::MAX),
    };
    let pieces = value.splitn(most, separator.as_str()).enumerate();
    Value::Map(pieces.map(|(index, piece)| (format!("_{index}"), piece.into())).collect())
}

fn chunks(size: &Value, list: &Value) -> Outcome {
    let Some(size) = usize::try_from(int(size)).ok().filter(|&size| size > 0) else {
        return error("a chunk has at least one item");
    };
    let chunks = items(list)?.chunks(size);
    Ok(Value::Array(chunks.map(|chunk| Value::Array(chunk.to_vec())).collect()))
}

fn split(value: &Value, separator: &Value) -> Value {
    let (value, separator) = (text(value), text(separator));
    if separator.is_empty() {
        return value.chars().map(String::from).collect::<Vec<_>>().into();
    }
    value.split(separator.as_str()).map(str::to_owned).collect::<Vec<_>>().into()
}

fn join(separator: &Value, list: &Value) -> Value {
    match list {
        Value::Array(items) => {
            let there = items.iter().filter(|item| !matches!(item, Value::Nil | Value::NoValue));
            there.map(text).collect::<Vec<_>>().join(&text(separator)).into()
        }
        single => text(single).into(),
    }
}

fn unique(list: &Value) -> Outcome {
    let mut kept: Vec<Value> = Vec::new();
    for item in items(list)? {
        if !kept.contains(item) {
            kept.push(item.clone());
        }
    }
    Ok(kept.into())
}

/// sprig `untilStep`: from `from` until before `to`.
fn numbers(from: i64, to: i64, step: i64) -> Result<Vec<i64>, FuncError> {
    let limit = limits::active().iterations.unwrap_or(usize::MAX);
    let mut numbers = Vec::new();
    let mut next = from;
    while step != 0 && if step > 0 { next < to } else { next > to } {
        if numbers.len() >= limit {
            error(format!("a list of more than {limit} numbers"))?;
        }
        numbers.push(next);
        let Some(following) = next.checked_add(step) else { break };
        next = following;
    }
    Ok(numbers)
}

/// sprig `seq`, like the command of that name: a text of numbers, the last included.
fn sequence(args: &[Value]) -> Outcome {
    let ints: Vec<i64> = args.iter().map(int).collect();
    let direction = |from: i64, to: i64| if to < from { -1 } else { 1 };
    let (from, step, to) = match *ints {
        [] => return Ok("".into()),
        [to] => (1, direction(1, to), to),
        [from, to] => (from, direction(from, to), to),
        [from, step, to] => (from, step, to),
        _ => return error("seq takes up to three numbers"),
    };
    let numbers = numbers(from, to.saturating_add(direction(from, to)), step)?;
    Ok(numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(" ").into())
}

fn dictionary(args: &[Value]) -> Value {
    let pairs = args.chunks(2).map(|pair| match pair {
        [key, value, ..] => (text(key), value.clone()),
        [key] => (text(key), "".into()),
        [] => (String::new(), Value::Nil),
    });
    Value::Map(pairs.collect())
}

#[cfg(test)]
mod tests {
    fn eval(expression: &str) -> String {
        let mut template = gtmpl_ng::Template::default();
        template.add_funcs(super::super::functions::TABLE);
        template.add_funcs(super::TABLE);
        template.parse(format!("{{{{ {expression} }}}}")).unwrap();
        template
            .render(&gtmpl_ng::Context::from(false))
            .unwrap_or_else(|error| format!("error: {error}"))
    }

    #[test]
    fn lists() {
        assert_eq!(eval(r#"split "a,b" "," | join "+""#), "a+b");
        assert_eq!(eval(r#"splitList "," "a,b" | last"#), "b");
        assert_eq!(eval(r#"first (split "abc" "")"#), "a");
        assert_eq!(eval(r#"list 1 2 3 | rest | join ",""#), "2,3");
        assert_eq!(eval(r#"list 1 2 3 | initial | join ",""#), "1,2");
        assert_eq!(eval(r#"append (list 1) 2 | join ",""#), "1,2");
        assert_eq!(eval(r#"prepend (list 1) 2 | join ",""#), "2,1");
        assert_eq!(eval(r#"concat (list 1) (list 2 3) | reverse | join ",""#), "3,2,1");
        assert_eq!(eval(r#"list "b" "" "a" "b" | compact | uniq | sortAlpha | join ",""#), "a,b");
        assert_eq!(eval(r#"without (list 1 2) 1 | join ",""#), "2");
        assert_eq!(eval("has 2 (list 1 2)"), "true");
        assert_eq!(eval("first (list) | empty"), "true");
        assert!(eval("first 3").starts_with("error"));
    }

    #[test]
    fn numbers() {
        assert_eq!(eval(r#"until 3 | join ",""#), "0,1,2");
        assert_eq!(eval(r#"until -3 | join ",""#), "0,-1,-2");
        assert_eq!(eval(r#"untilStep 3 10 3 | join ",""#), "3,6,9");
        assert_eq!(eval(r#"untilStep 3 0 -1 | join ",""#), "3,2,1");
        assert_eq!(eval(r#"untilStep 3 10 0 | join ",""#), "");
        assert_eq!(eval("seq 3"), "1 2 3");
        assert_eq!(eval("seq 2 5"), "2 3 4 5");
        assert_eq!(eval("seq 5 -2 1"), "5 3 1");
        assert_eq!(eval("seq 0"), "1 0");
        assert_eq!(eval("seq 5 2 1"), "");
        assert!(eval("until 1000000000").starts_with("error"));
    }

    #[test]
    fn dictionaries() {
        assert_eq!(eval(r#"get (dict "a" 1 "b" 2) "b""#), "2");
        assert_eq!(eval(r#"get (dict "a" 1) "b""#), "");
        assert_eq!(eval(r#"hasKey (dict "a" 1) "a""#), "true");
        assert_eq!(eval(r#"keys (dict "b" 1 "a" 1) | join ",""#), "a,b");
        assert_eq!(eval(r#"index (dict "a" 1) "a""#), "1");
    }
}
