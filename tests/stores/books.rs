//! The books of each store that keeps them: every row counted once, whatever it is grouped by and however it is paged.

use std::collections::BTreeMap;
use std::sync::Arc;

use tollgate::edge::store::{Embedded, Memory};
use tollgate::gate::{Books, BooksWish, By, Group, Meters, Sum, TimeSpan};
use tollgate::meter::{Hold, Spending, Usage};
use tollgate::model::Amount;

use crate::{NOON, at, charge, daily, hold, id, tokens, wait};

const DAY: i64 = 86_400_000;
const TODAY: i64 = NOON / DAY;

fn each(check: impl Fn(&dyn Meters)) {
    check(&Memory::default());
    let directory = tempfile::tempdir().unwrap();
    check(&Embedded::open(directory.path(), at(0)).unwrap());
}

fn wish(by: By) -> BooksWish {
    BooksWish {
        from: TODAY - 1000,
        to: TODAY + 1000,
        by,
        principal: None,
        resource: None,
        limit: None,
        after: None,
        most: 1000,
    }
}

fn spent(number: u128, who: u64, what: u64) -> Hold {
    let spending = Spending {
        principal: format!("User::\"user-{who}\"").parse().unwrap(),
        resource: format!("Model::\"open/model-{what}\"").parse().unwrap(),
        permitted: Box::default(),
        price: None,
        if_unknown: Box::default(),
    };
    Hold { spending: Arc::new(spending), ..hold(number, &[]) }
}

fn paged(books: &dyn Books, wish: &BooksWish, most: usize) -> Vec<(Group, Sum)> {
    let mut wish = BooksWish { most, ..wish.clone() };
    let mut lines = Vec::new();
    loop {
        let page = books.report(&wish).unwrap();
        assert!(page.lines.len() <= most);
        wish.after = page.lines.last().map(|(group, _)| group.clone());
        lines.extend(page.lines);
        if !page.more {
            return lines;
        }
    }
}

#[test]
fn groups_add_up_whatever_they_are() {
    each(|store| {
        let mut expected: BTreeMap<(i64, u64, u64), [i128; 2]> = BTreeMap::new();
        for number in 0..600_u64 {
            let (day, who, what) = (i64::try_from(number % 70).unwrap(), number * 7 % 11, number * 13 % 5);
            let usage = Usage { usd: Amount::new(number * 1_000_003), ..tokens(number) };
            wait(store.record(spent(number.into(), who, what), usage, at(day * DAY))).unwrap();
            let sums = expected.entry((TODAY + day, who, what)).or_default();
            *sums = [sums[0] + i128::from(number), sums[1] + i128::from(number) * 1_000_003];
        }
        let books = store.books().unwrap();
        let every = By { time: Some(TimeSpan::Day), principal: true, resource: true, limit: false };
        let rows = paged(&*books, &wish(every), 1000);
        assert_eq!(rows.len(), expected.len());
        for time in [None, Some(TimeSpan::Day), Some(TimeSpan::Month)] {
            for (principal, resource) in [(false, false), (true, false), (false, true), (true, true)] {
                let wish = wish(By { time, principal, resource, limit: false });
                let whole = paged(&*books, &wish, 1000);
                assert_eq!(paged(&*books, &wish, 7), whole);
                assert!(whole.is_sorted_by(|(one, _), (other, _)| one < other));
                let mut total = [0, 0, 0];
                for (_, sum) in &whole {
                    let Sum::Used { requests, input_tokens, nano_usd, .. } = sum else { panic!("{sum:?}") };
                    total = [total[0] + requests, total[1] + input_tokens, total[2] + nano_usd];
                }
                let wanted = expected.values().fold([600, 0, 0], |sum, one| [sum[0], sum[1] + one[0], sum[2] + one[1]]);
                assert_eq!(total, wanted);
            }
        }
        let one = BooksWish {
            from: TODAY + 3,
            to: TODAY + 3,
            principal: Some("User::\"user-10\"".into()),
            ..wish(By { resource: true, ..By::default() })
        };
        let found = paged(&*books, &one, 2);
        let wanted = expected.iter().filter(|((day, who, _), _)| (*day, *who) == (TODAY + 3, 10));
        assert_eq!(found.len(), wanted.clone().count());
        assert!(!found.is_empty());
        for ((group, sum), ((_, _, what), wanted)) in found.iter().zip(wanted) {
            assert_eq!(group.resource.as_deref(), Some(format!("Model::\"open/model-{what}\"").as_str()));
            assert!(matches!(sum, Sum::Used { input_tokens, .. } if *input_tokens == wanted[0]));
        }
    });
}

#[test]
fn what_is_corrected_on_another_day_is_booked_on_that_one() {
    each(|store| {
        let limit = daily("day", 100);
        let last = 12 * 3_600_000 - 1000;
        wait(store.hold(hold(1, &[charge(&limit, "a", 80)]), at(last - 60_000))).unwrap();
        store.tick(at(last));
        wait(store.settle(id(1), tokens(30), at(last + 2000))).unwrap();
        let by = By { time: Some(TimeSpan::Day), limit: true, ..By::default() };
        let lines = paged(&*store.books().unwrap(), &wish(by), 10);
        let told: Vec<(Option<i64>, Sum)> = lines.into_iter().map(|(group, sum)| (group.time, sum)).collect();
        assert_eq!(told, [(Some(TODAY), Sum::Counted(80)), (Some(TODAY + 1), Sum::Counted(-50))]);
    });
}

#[test]
fn the_largest_numbers_add_up_without_a_float() {
    let most = Amount::MAX.get();
    each(|store| {
        for number in 0..3_u8 {
            let usage = Usage { usd: Some(Amount::MAX), ..tokens(most) };
            let day = i64::from(number / 2) * DAY;
            wait(store.record(spent(number.into(), 1, 1), usage, at(day))).unwrap();
        }
        let lines = paged(&*store.books().unwrap(), &wish(By::default()), 10);
        let [(_, Sum::Used { requests: 3, input_tokens, nano_usd, .. })] = lines.as_slice() else {
            panic!("{lines:?}")
        };
        // The file has 64 bits for a row, and stays at the most; rows are added up in 128.
        assert!([2, 3].map(|times| times * i128::from(most)).contains(input_tokens));
        assert_eq!(nano_usd, input_tokens);
    });
}
