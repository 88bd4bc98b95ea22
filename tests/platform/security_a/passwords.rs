//! What is done with passwords, and with those who guess them: A12–A14, A17, A18.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sconce::auth::{AuthError, Origin};
use sconce::store::JsonText;
use secrecy::SecretString;
use serde_json::json;

use crate::app::{OWNER, OWNER_PASSWORD, TestApp};
use crate::rig::{
    LOGIN, ME, add_key, add_user, audited, number, post, replica, send, sign_in, sign_in_from, start,
};

const WRONG: &str = "not-the-password-of-anybody";

/// The proxy is this machine.
const PROXIED: [(&str, &str); 1] = [("trusted-proxy", "127.0.0.1/32")];

#[tokio::test]
async fn a12_an_unknown_user_and_a_wrong_password_are_told_apart_by_nothing() {
    let app = TestApp::start_with(&PROXIED).await.without_key();
    let mut bodies = BTreeSet::new();
    // Each from an address of its own, so that nobody is slowed down.
    for (number, (name, password)) in [
        (OWNER, WRONG),
        ("nobody", WRONG),
        ("nobody", OWNER_PASSWORD),
        ("no user name at all!", WRONG),
        ("", ""),
        (OWNER, ""),
        (&"x".repeat(5000), WRONG),
        ("a\0b", WRONG),
        (OWNER, "a\0b"),
    ]
    .into_iter()
    .enumerate()
    {
        let before = app.auth.password_checks();
        let address = format!("192.0.2.{number}");
        let body = json!({"username": name, "password": password});
        let request = app.client.post(format!("{}{LOGIN}", app.url)).json(&body);
        let response = request.header("x-forwarded-for", &address).send().await.expect("an answer");
        let mut headers = response.headers().clone();
        for own in ["date", "x-request-id"] {
            headers.remove(own);
        }
        bodies.insert((
            response.status().as_u16(),
            format!("{headers:?}"),
            response.text().await.expect("text"),
        ));
        assert_eq!(
            app.auth.password_checks(),
            before + 1,
            "{number}: each is one computation, of the same cost"
        );
    }
    assert_eq!(bodies.len(), 1, "{bodies:#?}");
    let (status, _, body) = bodies.first().expect("one");
    assert_eq!(
        (*status, body.as_str()),
        (401, r#"{"code":40102,"message":"Wrong user name or password","data":null}"#)
    );
}

#[tokio::test]
#[ignore = "2000 sign-ins on a machine with nothing else to do"]
async fn a12_an_unknown_user_and_a_wrong_password_take_the_same_time() {
    let app = TestApp::start_with(&PROXIED).await.without_key();
    let mut times = [Vec::new(), Vec::new()];
    for sample in 0..1000_u32 {
        let [_, b, c, d] = sample.to_be_bytes();
        // One account each, or the account would be slowed down.
        let known = format!("user{sample}");
        add_user(&app, &known, "user", |_| {}).await;
        for (times, name) in times.iter_mut().zip([known, format!("none{sample}")]) {
            let begun = Instant::now();
            let reply = sign_in_from(&app, Some(&format!("10.{b}.{c}.{d}")), &name, WRONG).await;
            times.push(begun.elapsed());
            assert_eq!(reply.is(), (401, 40102));
        }
    }
    let [known, unknown] = times.map(|mut times| {
        times.sort();
        times[times.len() / 2].as_secs_f64()
    });
    println!("medians: known {:.3} ms, unknown {:.3} ms", known * 1e3, unknown * 1e3);
    assert!((known / unknown - 1.0).abs() < 0.05, "known {known} s, unknown {unknown} s");
}

#[tokio::test]
async fn a13_one_account_from_a_hundred_addresses_is_slowed_down_and_its_owner_gets_in() {
    let clock = start();
    let app = TestApp::start_by(&PROXIED, clock.clone()).await.without_key();
    let home = "198.51.100.7";
    assert_eq!(sign_in_from(&app, Some(home), OWNER, OWNER_PASSWORD).await.status, 200);
    clock.advance(Duration::from_secs(29 * 24 * 3600));

    let mut answers = Vec::new();
    for number in 0..100 {
        let reply = sign_in_from(&app, Some(&format!("203.0.113.{number}")), OWNER, WRONG).await;
        if reply.status == 429 {
            assert_eq!((reply.code, reply.retry_after), (42904, Some(1)), "{}", reply.body);
            assert_eq!(reply.body["data"]["retry_after_ms"], 1000);
        }
        answers.push(reply.status);
    }
    assert_eq!(answers[..5], [401; 5]);
    assert_eq!(answers[5..], [429; 95]);
    let right = sign_in_from(&app, Some("203.0.113.200"), OWNER, OWNER_PASSWORD).await;
    assert_eq!(right.is(), (429, 42904), "the right password is not told from a wrong one meanwhile");
    assert_eq!(
        throttled_on_another_replica(&app, [203, 0, 113, 201], OWNER).await,
        Some(Duration::from_secs(1))
    );

    // From where the owner signed in lately the door is open, and the strangers are where they were.
    assert_eq!(sign_in_from(&app, Some(home), OWNER, OWNER_PASSWORD).await.status, 200);
    assert_eq!(sign_in_from(&app, Some("203.0.113.202"), OWNER, WRONG).await.is(), (429, 42904));
    for expected in [2, 4, 8, 16, 32] {
        clock.advance(Duration::from_secs(expected / 2));
        assert_eq!(sign_in_from(&app, Some("203.0.113.9"), OWNER, WRONG).await.is(), (401, 40102));
        let reply = sign_in_from(&app, Some("203.0.113.10"), OWNER, WRONG).await;
        assert_eq!((reply.status, reply.retry_after), (429, Some(expected)));
    }
    // Slowed down, not locked.
    clock.advance(Duration::from_secs(32));
    assert_eq!(sign_in_from(&app, Some("203.0.113.11"), OWNER, OWNER_PASSWORD).await.status, 200);
}

/// How long another replica wants this address to wait.
async fn throttled_on_another_replica(app: &TestApp, address: [u8; 4], name: &str) -> Option<Duration> {
    let origin = Origin {
        address: IpAddr::from(address),
        request: String::new(),
        request_id: String::new(),
        user_agent: String::new(),
    };
    let done = replica(app).await.sign_in(name, SecretString::from(OWNER_PASSWORD), &origin).await;
    match done.map(|_| ()) {
        Err(AuthError::Throttled { retry_after }) => Some(retry_after),
        _ => None,
    }
}

#[tokio::test]
async fn a13_one_address_over_a_hundred_accounts_is_slowed_down_and_success_does_not_help_it() {
    let clock = start();
    let app = TestApp::start_by(&PROXIED, clock.clone()).await.without_key();
    let (here, there) = ("203.0.113.5", "203.0.113.6");
    add_user(&app, "mallory", "user", |_| {}).await;
    let mut answers = Vec::new();
    for number in 0..100 {
        answers.push(sign_in_from(&app, Some(here), &format!("user{number}"), WRONG).await.status);
        if number == 10 {
            assert_eq!(sign_in_from(&app, Some(here), "mallory", OWNER_PASSWORD).await.status, 200);
        }
    }
    assert_eq!(answers[..20], [401; 20]);
    assert_eq!(answers[20..], [429; 80]);
    assert_eq!(
        throttled_on_another_replica(&app, [203, 0, 113, 5], "user99").await,
        Some(Duration::from_secs(1))
    );
    assert_eq!(
        sign_in_from(&app, Some(there), "user99", WRONG).await.status,
        401,
        "others are not concerned"
    );
    assert_eq!(audited(&app, "user.sign_in_failed").await, 21);
}

#[tokio::test]
async fn a13_who_makes_names_up_does_not_keep_a_known_owner_of_the_same_address_out() {
    let app = TestApp::start_by(&PROXIED, start()).await.without_key();
    let shared = Some("203.0.113.77");
    add_user(&app, "ada", "user", |_| {}).await;
    add_user(&app, "new", "user", |_| {}).await;
    assert_eq!(sign_in_from(&app, shared, "ada", OWNER_PASSWORD).await.status, 200);
    let mut last = 0;
    for number in 0..25 {
        last = sign_in_from(&app, shared, &format!("none{number}"), WRONG).await.status;
    }
    assert_eq!(last, 429, "the address is slowed down");
    assert_eq!(sign_in_from(&app, shared, "ada", OWNER_PASSWORD).await.status, 200);
    let unknown = sign_in_from(&app, shared, "new", OWNER_PASSWORD).await;
    assert_eq!(unknown.is(), (429, 42904), "who was never there waits with the others");
    // What is tried on the known account is counted all the same.
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(sign_in_from(&app, shared, "ada", WRONG).await.status);
    }
    assert_eq!(answers, [401, 401, 401, 401, 401, 429]);
}

#[tokio::test]
async fn a13_success_forgets_the_accounts_failures_and_many_at_once_count_as_many() {
    let app = TestApp::start_by(&PROXIED, start()).await.without_key();
    assert_eq!(sign_in_from(&app, None, OWNER, OWNER_PASSWORD).await.status, 200);
    for _ in 0..3 {
        for _ in 0..4 {
            assert_eq!(sign_in_from(&app, None, OWNER, WRONG).await.status, 401);
        }
        assert_eq!(sign_in_from(&app, None, OWNER, OWNER_PASSWORD).await.status, 200);
    }
    // From 60 addresses at the same moment: those that were not refused at once wait for a place, and are refused then.
    let addresses: Vec<String> = (0..60).map(|number| format!("203.0.113.{number}")).collect();
    let all = join_all(addresses.iter().map(|address| sign_in_from(&app, Some(address), OWNER, WRONG))).await;
    let tried = all.iter().filter(|reply| reply.status == 401).count();
    assert!((5..=6).contains(&tried), "as many as are computed at once may be one too many: {tried}");
    assert!(all.iter().all(|reply| [401, 429].contains(&reply.status)));
}

#[tokio::test]
async fn a13_a_disabled_account_is_told_only_to_those_who_know_its_password() {
    let app = TestApp::start().await.without_key();
    add_user(&app, "gone", "user", |user| user.status = "disabled".into()).await;
    assert_eq!(sign_in_from(&app, None, "gone", WRONG).await.is(), (401, 40102));
    assert_eq!(sign_in_from(&app, None, "gone", OWNER_PASSWORD).await.is(), (403, 40305));
    assert_eq!(number(&app, "SELECT COUNT(*) FROM sessions").await, 0);
}

#[tokio::test]
async fn a14_x_forwarded_for_is_believed_only_of_a_trusted_proxy() {
    // Untrusted: whatever the header says, it is this machine that tries.
    let app = TestApp::start_by(&[], start()).await.without_key();
    let mut answers = Vec::new();
    for number in 0..30 {
        let (address, name) = (format!("203.0.113.{number}"), format!("user{number}"));
        answers.push(sign_in_from(&app, Some(&address), &name, WRONG).await.status);
    }
    assert_eq!((&answers[..20], &answers[20..]), (&[401; 20][..], &[429; 10][..]));
    let here = "SELECT COUNT(*) FROM audit WHERE action = 'user.sign_in_failed' AND address = '127.0.0.1'";
    assert_eq!((number(&app, here).await, audited(&app, "user.sign_in_failed").await), (20, 20));
    assert_eq!(allow_listed(&app, Some("203.0.113.5")).await, (403, 40304));

    let app = TestApp::start_by(&PROXIED, start()).await.without_key();
    assert_eq!(allow_listed(&app, None).await, (403, 40304));
    assert_eq!(allow_listed(&app, Some("203.0.113.5")).await, (200, 0));
    assert_eq!(allow_listed(&app, Some("198.51.100.1")).await, (403, 40304));
    // What the client wrote itself stands before what the proxy saw.
    assert_eq!(allow_listed(&app, Some("203.0.113.5, 198.51.100.1")).await, (403, 40304));
    assert_eq!(allow_listed(&app, Some("198.51.100.1, 203.0.113.5")).await, (200, 0));
    assert_eq!(allow_listed(&app, Some("203.0.113.5, nonsense")).await, (403, 40304));
    // As some proxies write it.
    assert_eq!(allow_listed(&app, Some("203.0.113.5:4711")).await, (200, 0));
    assert_eq!(allow_listed(&app, Some("198.51.100.1:4711")).await, (403, 40304));
    for (forwarded, expected) in [
        ("[2001:db8::1]:4711", (200, 0)),
        ("[2001:db8::1]", (200, 0)),
        ("2001:db8::1", (200, 0)),
        ("[2001:db9::1]:4711", (403, 40304)),
        ("127.0.0.1", (200, 0)),
        // Nobody knows where these are from: not from the proxy, and not from anywhere.
        ("unknown", (403, 40304)),
        ("_hidden", (403, 40304)),
        ("", (403, 40304)),
        ("127.0.0.1:x", (403, 40304)),
        ("::", (403, 40304)),
        ("0.0.0.0", (403, 40304)),
        ("203.0.113.5, unknown, 127.0.0.1", (403, 40304)),
    ] {
        let networks = ["2001:db8::/32", "127.0.0.0/8", "::/128", "0.0.0.0/32"];
        assert_eq!(allowed_from(&app, &networks, Some(forwarded)).await, expected, "{forwarded:?}");
    }
    assert_eq!(allowed_from(&app, &["0.0.0.0/0", "::/0"], Some("unknown")).await, (403, 40304));
    sign_in_from(&app, Some("198.51.100.99, 203.0.113.77"), OWNER, WRONG).await;
    let seen = "SELECT COUNT(*) FROM audit WHERE action = 'user.sign_in_failed' AND address = '203.0.113.77'";
    assert_eq!(number(&app, seen).await, 1);
}

/// What a key gets that may be used from 203.0.113.0/24 only.
async fn allow_listed(app: &TestApp, forwarded: Option<&str>) -> (u16, u64) {
    allowed_from(app, &["203.0.113.0/24"], forwarded).await
}

/// What a key gets that may be used from these networks only.
async fn allowed_from(app: &TestApp, networks: &[&str], forwarded: Option<&str>) -> (u16, u64) {
    let networks: Vec<String> = networks.iter().map(|network| (*network).to_owned()).collect();
    let name = format!("user-{}", crate::rig::unique());
    let user = add_user(app, &name, "user", |_| {}).await;
    let key = add_key(app, &user, |row| row.cidrs = Some(JsonText(networks))).await;
    let request = app.get(ME).bearer_auth(key.reveal());
    send(match forwarded {
        Some(forwarded) => request.header("x-forwarded-for", forwarded),
        None => request,
    })
    .await
    .is()
}

/// Such as stand on top of every list of passwords that leaked.
const COMMON: &str = "123456789 12345678 password qwerty123 11111111 1234567890 1q2w3e4r qwertyuiop 123456789a \
    password1 iloveyou princess1 sunshine football baseball superman 1qaz2wsx michelle jennifer trustno1 starwars \
    computer corvette mercedes victoria samantha passw0rd p@ssw0rd letmein1 welcome1 admin123 administrator changeme \
    zaq12wsx q1w2e3r4 asdfghjkl 87654321 88888888 00000000 abcd1234 abc12345 dragon12 monkey12 shadow12 master12 \
    qazwsxedc 1234qwer qwer1234 internet whatever bullshit jonathan liverpool charlotte chocolate butterfly \
    aaaaaaaa 12341234 asdfasdf 123123123 987654321 Password! Qwerty123! Passw0rd! Welcome1! Admin@123 P@ssword1";

#[tokio::test]
async fn a17_short_common_and_obvious_passwords_are_refused_and_no_other() {
    let app = TestApp::start().await.without_key();
    let mut token = sign_in(&app, OWNER).await.0;
    let before = app.auth.password_checks();
    let weak = COMMON.split_whitespace().chain([
        "",
        "7 chars",
        "密码密码密码密",
        "sconce-sconce",
        "Sconce2026!",
        "adminadmin",
        "admin1987!",
    ]);
    let huge = "long-".repeat(200_000);
    for password in weak.chain([huge.as_str()]) {
        let body = json!({"current_password": OWNER_PASSWORD, "new_password": password});
        let reply = post(&app, "/api/v1/me/password", &token, &body).await;
        let shown: String = password.chars().take(30).collect();
        assert_eq!(reply.is(), (400, 40016), "{shown}: {}", reply.body["message"]);
        assert_eq!(reply.body["data"]["errors"][0]["field"], "new_password", "{shown}");
    }
    assert_eq!(app.auth.password_checks(), before, "nothing is computed for those");
    let of_a_megabyte = sign_in_from(&app, None, OWNER, &"x".repeat(1 << 20)).await;
    assert_eq!((of_a_megabyte.status, app.auth.password_checks()), (413, before));
    let of_2000 = sign_in_from(&app, None, OWNER, &"x".repeat(2000)).await;
    assert_eq!((of_2000.is(), app.auth.password_checks()), ((401, 40102), before));

    let long: String = (0..100_u32).filter_map(|n| char::from_u32(0x4e00 + n * 37)).collect();
    let fine = [
        "correct horse battery".to_owned(),
        "  two spaces before, one after ".to_owned(),
        "tab\tand nul \0 and €uro 😀".to_owned(),
        "Vb3-Kq9x;mT7.wZ1:Lr5+Hc2,Jd8=Fg0/Sy4*Pn6!Bx3?Ue9~Oa7(Ei1)Wd5[Gk2]Rt".to_owned(),
        long,
    ];
    let mut current = OWNER_PASSWORD.to_owned();
    for password in fine {
        let body = json!({"current_password": current, "new_password": password});
        let reply = post(&app, "/api/v1/me/password", &token, &body).await;
        assert_eq!(reply.status, 200, "{password:?}: {}", reply.body);
        token = reply.text("access_token");
        current = password;
        // Nothing is cut off or trimmed.
        let shorter: String = current.chars().take(current.chars().count() - 1).collect();
        for other in [shorter, current.trim().to_owned(), current.to_uppercase()] {
            let expected = if other == current { 200 } else { 401 };
            let reply = sign_in_from(&app, None, OWNER, &other).await;
            assert_eq!(reply.status, expected, "{other:?} for {current:?}");
        }
        assert_eq!(sign_in_from(&app, None, OWNER, &current).await.status, 200, "{current:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a18_two_hundred_sign_ins_at_once_do_not_hold_up_the_rest() {
    let app = TestApp::start().await.without_key();
    let body = json!({"username": OWNER, "password": OWNER_PASSWORD});
    let all: Vec<_> = (0..200)
        .map(|_| tokio::spawn(app.client.post(format!("{}{LOGIN}", app.url)).json(&body).send()))
        .collect();
    let (mut times, mut beat) = (Vec::new(), tokio::time::interval(Duration::from_millis(5)));
    while !all.iter().all(tokio::task::JoinHandle::is_finished) {
        beat.tick().await;
        let begun = Instant::now();
        assert_eq!(app.get("/health").send().await.expect("an answer").status().as_u16(), 200);
        times.push(begun.elapsed());
    }
    for one in all {
        let response = one.await.expect("it did not panic").expect("an answer");
        assert_eq!(response.status().as_u16(), 200);
    }
    times.sort();
    let slow = times[times.len() * 99 / 100];
    println!("{} questions, the slowest of a hundred took {slow:?}", times.len());
    assert!(slow < Duration::from_millis(50), "{slow:?} of {} questions", times.len());
}
