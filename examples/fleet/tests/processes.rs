//! Real processes, and a database that counts.

mod common;

use common::{limit, program, redis};
use fleet::crew::Sharing;
use fleet::demo::stampede;

#[test]
fn four_processes_of_fifty_threads_send_one_query() {
    let _limit = limit(60);
    let Some(redis) = redis() else { return };
    let queries = |sharing| stampede(program(), &redis.url(), sharing).unwrap();
    assert_eq!(queries(Sharing::Unshared), 200);
    assert_eq!(queries(Sharing::Local), 4);
    assert_eq!(queries(Sharing::Both), 1);
}
