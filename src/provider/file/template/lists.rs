//! Template functions on lists and dictionaries, with sprig's names and argument order. `split`
//! is Traefik's. Values are copies, so functions that change a dictionary in place are left out.

use std::collections::HashMap;
use std::slice;

use gtmpl_ng::{Func, FuncError, Value, limits};

use super::functions::{Outcome, error, int, is_empty, take, text};

/// All functions of this file.
pub(super) const TABLE: &[(&str, Func)] = &[
    ("list", |args| Ok(Value::Array(args.to_vec()))),
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
