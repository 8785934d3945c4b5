//! Who may do what, and what is told to whom.

use axum::http::Method;
use slipway_types::ErrorCode;

use super::super::Compression;
use super::fake::{Auth, Fake};
use super::fixtures::Image;
use super::*;

const SECRET: &str = "correct-horse-battery";

fn token_auth(anonymous: bool, uses: usize) -> Auth {
    Auth::Token { user: "user".into(), password: SECRET.into(), anonymous, uses }
}

fn assert_no_secret(text: &str) {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("user:{SECRET}"));
    assert!(!text.contains(SECRET) && !text.contains(&encoded) && !text.contains("token-"), "{text}");
}

#[tokio::test]
async fn both_ways_in() {
    let platform = "linux/amd64".parse().unwrap();
    for auth in [Auth::Basic { user: "user".into(), password: SECRET.into() }, token_auth(false, 99)] {
        let fake = Fake::start().await;
        fake.add("team/app", "1", &Image::sample());
        fake.state().auth = auth;
        let name = fake.reference("team/app:1");

        let own = store();
        let failed = plain_client().pull(&own.store, &name, &platform, silent()).await.unwrap_err();
        assert_eq!(failed.code(), ErrorCode::Unauthorized);
        assert!(failed.hint().unwrap().contains(&format!("slipway login {}", fake.host)));
        assert!(everything(&failed).contains("authentication required"), "{}", everything(&failed));
        own.assert_empty();

        let wrong = client(RegistrySettings::default(), vec![(fake.host.clone(), password("user", "wrong"))]);
        let failed = wrong.pull(&own.store, &name, &platform, silent()).await.unwrap_err();
        assert_eq!(failed.code(), ErrorCode::Unauthorized);
        assert!(everything(&failed).contains("refused the credentials"), "{}", everything(&failed));

        let right = client(RegistrySettings::default(), vec![(fake.host.clone(), password("user", SECRET))]);
        let pulled = right.pull(&own.store, &name, &platform, silent()).await.unwrap();
        let copy = fake.reference("team/copy:1");
        right.push(&own.store, &pulled.image, &copy, Compression::Gzip, silent()).await.unwrap();
        let missing = fake.reference("team/missing:1");
        let failed = right.pull(&own.store, &missing, &platform, silent()).await.unwrap_err();
        assert_eq!(failed.code(), ErrorCode::NotFound);
        assert_no_secret(&everything(&failed));
    }
}

#[tokio::test]
async fn tokens_are_kept_and_renewed() {
    let fake = Fake::start().await;
    fake.add("a", "1", &Image::sample());
    let platform = "linux/amd64".parse().unwrap();
    fake.state().auth = token_auth(true, 99);
    plain_client().pull(&store().store, &fake.reference("a:1"), &platform, silent()).await.unwrap();
    assert_eq!(fake.seen(Method::GET, "/token").len(), 1, "one token for the whole pull");
    assert_eq!(fake.seen(Method::GET, "/token")[0].query, "service=fake&scope=repository%3Aa%3Apull");

    fake.forget();
    fake.state().auth = token_auth(true, 1);
    plain_client().pull(&store().store, &fake.reference("a:1"), &platform, silent()).await.unwrap();
    assert_eq!(fake.seen(Method::GET, "/token").len(), 4, "a manifest, a configuration, two layers");

    // A token that never works is no loop.
    fake.forget();
    fake.state().auth = token_auth(true, 0);
    let failed =
        plain_client().pull(&store().store, &fake.reference("a:1"), &platform, silent()).await.unwrap_err();
    assert_eq!(failed.code(), ErrorCode::Unauthorized);
    assert_eq!(fake.seen(Method::GET, "/token").len(), 1);
}

#[tokio::test]
async fn anonymous_may_pull_and_not_push() {
    let fake = Fake::start().await;
    fake.add("a", "1", &Image::sample());
    fake.state().auth = token_auth(true, 99);
    let own = store();
    let platform = "linux/amd64".parse().unwrap();
    let pulled = plain_client().pull(&own.store, &fake.reference("a:1"), &platform, silent()).await.unwrap();
    let failed = plain_client()
        .push(&own.store, &pulled.image, &fake.reference("b:1"), Compression::Gzip, silent())
        .await
        .unwrap_err();
    assert_eq!(failed.code(), ErrorCode::Unauthorized, "{}", everything(&failed));
    assert!(failed.hint().unwrap().contains("slipway login"));
}

#[tokio::test]
async fn each_host_gets_its_own_credentials_only() {
    let (mirror, origin) = (Fake::start().await, Fake::start().await);
    let image = Image::sample();
    origin.add("a", "1", &image);
    for fake in [&mirror, &origin] {
        fake.state().auth = Auth::Basic { user: "user".into(), password: SECRET.into() };
    }
    let settings = mirrored(&origin.host, &[&mirror.host]);
    let registry = client(settings, vec![(origin.host.clone(), password("user", SECRET))]);
    let platform = "linux/amd64".parse().unwrap();
    registry.pull(&store().store, &origin.reference("a:1"), &platform, silent()).await.unwrap();
    assert!(!mirror.seen(Method::GET, "/manifests/").is_empty());
    assert!(mirror.state().seen.iter().all(|s| s.authorization.is_none()));
}

#[tokio::test]
async fn a_token_of_the_users_goes_to_the_registry_only() {
    let fake = Fake::start().await;
    fake.add("a", "1", &Image::sample());
    fake.state().auth = token_auth(false, 99);
    let registry =
        client(RegistrySettings::default(), vec![(fake.host.clone(), Credentials::Token("personal".into()))]);
    let platform = "linux/amd64".parse().unwrap();
    let failed =
        registry.pull(&store().store, &fake.reference("a:1"), &platform, silent()).await.unwrap_err();
    assert_eq!(failed.code(), ErrorCode::Unauthorized);
    assert_eq!(fake.seen(Method::GET, "/token").len(), 0);
    let sent = fake.seen(Method::GET, "/manifests/");
    assert_eq!(sent.last().unwrap().authorization.as_deref(), Some("Bearer personal"));
}

#[tokio::test]
async fn log_in() {
    for auth in [Auth::Basic { user: "user".into(), password: SECRET.into() }, token_auth(true, 99)] {
        let fake = Fake::start().await;
        fake.state().auth = auth;
        let registry = plain_client();
        registry.login_check(&fake.host, &password("user", SECRET)).await.unwrap();
        let failed = registry.login_check(&fake.host, &password("user", "other-secret")).await.unwrap_err();
        assert_eq!(failed.code(), ErrorCode::Unauthorized);
        let text = everything(&failed);
        assert!(text.contains(&fake.host) && !text.contains("other-secret"), "{text}");
        assert!(failed.hint().unwrap().contains("password"));
    }
    let open = Fake::start().await;
    plain_client().login_check(&open.host, &password("any", "any")).await.unwrap();
    let failed = plain_client().login_check("not a host", &password("a", "b")).await.unwrap_err();
    assert_eq!(failed.code(), ErrorCode::InvalidArgument);
}
