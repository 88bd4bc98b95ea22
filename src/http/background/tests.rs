//! Work that goes on, that is over, that is followed; and how much of it is remembered.

use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot};

use super::*;

fn place(background: &Background) -> Place {
    background.place("owner").map_err(|error| error.number()).expect("there is room")
}

/// The next thing that is said; it must be kept.
async fn heard(followed: &mut (impl Stream<Item = Result<Arc<str>, Forgotten>> + Unpin)) -> Option<Arc<str>> {
    followed.next().await.map(|text| text.expect("it is kept"))
}

#[tokio::test]
async fn work_is_found_followed_and_over() {
    let background = Background::new(128);
    let (more, go_on) = oneshot::channel::<()>();
    let work = background.begin(place(&background), "a", true, |work| async move {
        work.say(["1".to_owned(), "2".to_owned()]);
        go_on.await.expect("the test sends it");
        work.say(["3".to_owned()]);
    });
    let mut followed = Box::pin(background.find("a").expect("it goes on").follow(1));
    assert_eq!(heard(&mut followed).await.as_deref(), Some("2"));
    assert_eq!(background.running(), ["a"]);
    more.send(()).expect("it waits");
    assert_eq!(heard(&mut followed).await.as_deref(), Some("3"));
    assert_eq!(heard(&mut followed).await, None);
    work.over().await;
    assert!(background.running().is_empty());
    let again: Vec<_> = background.find("a").expect("it was here lately").follow(0).collect().await;
    assert_eq!(again.len(), 3);
    background.finished().await;
    background.forget("a");
    assert!(background.find("a").is_none());
}

#[tokio::test]
async fn work_that_is_taken_back_or_panics_is_over() {
    let background = Background::new(128);
    let cancelled =
        background.begin(place(&background), "a", false, |work| async move { work.cancelled().await });
    cancelled.cancel();
    cancelled.over().await;
    let broken = background.begin(place(&background), "b", true, |_| async { panic!("forced by the test") });
    broken.over().await;
    assert!(background.find("a").is_none() && background.running().is_empty());
    assert_eq!(broken.follow(0).count().await, 0);
}

#[tokio::test]
async fn a_place_is_taken_as_long_as_the_work_goes_on_unless_it_is_given_back() {
    let background = Background::within(Bounds { running: (1, 1), bytes: (100, 100) });
    let is_full = || background.place("owner").is_err();
    let cancelled =
        background.begin(place(&background), "a", false, |work| async move { work.cancelled().await });
    assert!(is_full());
    cancelled.cancel();
    cancelled.over().await;
    let broken = background.begin(place(&background), "b", false, |_| async { panic!("forced by the test") });
    assert!(is_full(), "it has not begun");
    broken.over().await;
    let (more, go_on) = oneshot::channel::<()>();
    let work = background.begin(place(&background), "c", true, |work| async move {
        work.give_place_back();
        work.say(["the end".to_owned()]);
        go_on.await.expect("the test sends it");
    });
    assert!(is_full(), "it has not begun");
    assert!(heard(&mut Box::pin(work.follow(0))).await.is_some());
    let next = place(&background);
    more.send(()).expect("it waits");
    work.over().await;
    assert!(is_full(), "the end of one takes no place from another");
    drop(next);
    assert!(!is_full());
}

#[tokio::test]
async fn only_the_latest_are_remembered() {
    let background = Background::new(128);
    for number in 0..=MOST_REMEMBERED {
        background.begin(place(&background), &number.to_string(), true, |_| async {}).over().await;
    }
    assert!(background.find("0").is_none() && background.find("1").is_some());
}

#[tokio::test]
async fn one_owner_leaves_room_for_others() {
    let background = Background::within(Bounds { running: (2, 3), bytes: (100, 100) });
    let (first, _second) = (place(&background), place(&background));
    let refused = background.place("owner").map(|_| ()).expect_err("they have two");
    assert_eq!((refused.number(), refused.message().contains("`background`")), (42901, true));
    let _third = background.place("another").map_err(|error| error.number()).expect("it is another's");
    assert!(background.place("a third").is_err(), "there are three");
    drop(first);
    assert!(background.place("a third").is_ok());
}

#[tokio::test]
async fn what_was_said_is_remembered_up_to_so_many_bytes_and_ones_own_goes_first() {
    let background = Background::within(Bounds { running: (9, 9), bytes: (100, 150) });
    let say = async |owner: &str, id: &str, bytes: usize| {
        let place = background.place(owner).map_err(|error| error.number()).expect("there is room");
        let text = "x".repeat(bytes);
        background.begin(place, id, true, |work| async move { work.say([text]) }).over().await;
    };
    let known = |id: &str| background.find(id).is_some();
    say("other", "other", 60).await;
    say("owner", "1", 50).await;
    say("owner", "2", 40).await;
    assert!(known("other") && known("1") && known("2"));
    say("owner", "3", 20).await;
    assert!(known("other") && !known("1") && known("2") && known("3"), "their own oldest went");
    say("third", "third", 60).await;
    assert!(!known("other") && known("2") && known("third"), "there was too much of all");
    say("owner", "4", 101).await;
    let too_much: Vec<_> = background.find("4").expect("it is over").follow(0).collect().await;
    assert_eq!(too_much, [Err(Forgotten)], "it is too much by itself");
    assert!(!known("2") && !known("3") && known("third"));
    background.forget("third");
    let all = background.0.all();
    assert_eq!((all.total, all.bytes.len()), (0, 0), "nothing is kept any longer");
}

/// Work that says what it is sent, and when it is said.
fn talker(background: &Background, owner: &str, id: &str) -> (Work, impl AsyncFn(&str)) {
    let (sender, mut texts) = mpsc::channel::<(String, oneshot::Sender<()>)>(1);
    let place = background.place(owner).map_err(|error| error.number()).expect("there is room");
    let work = background.begin(place, id, true, |work| async move {
        while let Some((text, said)) = texts.recv().await {
            work.say([text]);
            said.send(()).expect("the test waits");
        }
    });
    let say = async move |text: &str| {
        let (told, said) = oneshot::channel();
        sender.send((text.to_owned(), told)).await.expect("it goes on");
        said.await.expect("it says it");
    };
    (work, say)
}

#[tokio::test]
async fn what_goes_on_forgets_how_it_began_where_it_says_too_much() {
    let background = Background::within(Bounds { running: (9, 9), bytes: (10, 15) });
    let (work, say) = talker(&background, "owner", "a");
    let mut followed = Box::pin(work.follow(0));
    for text in ["1---", "2---", "3---", "4---"] {
        say(text).await;
        assert_eq!(heard(&mut followed).await.as_deref(), Some(text), "who listens misses nothing");
        assert!(work.bytes() <= 10 && background.0.all().total == work.bytes());
    }
    assert_eq!(work.forgotten(), 2);
    drop(say);
    assert_eq!(heard(&mut followed).await, None);
    let late: Vec<_> = work.follow(0).collect().await;
    assert_eq!(late, [Err(Forgotten)], "who comes late is told, and gets no other stream");
    let rest: Vec<_> = work.follow(2).map(|text| text.expect("it is kept").to_string()).collect().await;
    assert_eq!(rest, ["3---", "4---"]);
}

#[tokio::test]
async fn of_what_goes_on_whoever_said_the_most_forgets() {
    let background = Background::within(Bounds { running: (9, 9), bytes: (10, 15) });
    let (long, say_much) = talker(&background, "owner", "a");
    let (_short, say_little) = talker(&background, "owner", "b");
    let (other, say_else) = talker(&background, "other", "c");
    say_much("1---").await;
    say_much("2---").await;
    say_little("3--").await;
    assert_eq!((long.forgotten(), long.bytes()), (1, 4), "the owner has too much");
    say_else("4---").await;
    say_else("5---").await;
    assert_eq!((long.forgotten(), other.forgotten()), (1, 0));
    say_else("6").await;
    assert_eq!((long.forgotten(), other.forgotten()), (1, 1), "there is too much of all");
    assert_eq!(background.0.all().total, 12);
}
