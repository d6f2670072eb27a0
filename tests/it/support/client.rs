//! An API client.

use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::{Value, json};

/// Sends requests to one server, optionally with an access token.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

/// A response with its complete body.
#[derive(Debug)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn detail(&self) -> Value {
        self.json()["detail"].clone()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Asserts the status and returns the JSON body, or null if it is empty.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// Asserts the status and detail of an error.
    #[track_caller]
    pub fn refused(&self, status: u16, detail: &str) {
        assert_eq!((self.status.as_u16(), self.detail()), (status, json!(detail)), "{self:?}");
    }
}

impl Client {
    pub fn new(url: String) -> Self {
        Self { http: reqwest::Client::builder().no_proxy().build().unwrap(), url, token: None }
    }

    /// Returns a client with another token.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    pub fn without_token(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    pub fn token(&self) -> &str {
        self.token.as_deref().unwrap()
    }

    /// Builds a request with the token, if there is one.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Response {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Response { status, headers, text: response.text().await.unwrap() }
    }

    pub async fn get(&self, path: &str) -> Response {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Response {
        self.send(self.request(Method::DELETE, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Response {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn post_empty(&self, path: &str) -> Response {
        self.send(self.request(Method::POST, path)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Response {
        self.send(self.request(Method::PATCH, path).json(&body)).await
    }

    /// Exchanges an API key.
    pub async fn exchange(&self, key: &str) -> Response {
        self.send(self.without_token().request(Method::POST, "/auth/token").header("X-API-Key", key)).await
    }

    /// Exchanges the key and returns a client with the token.
    pub async fn login(&self, key: &str) -> Self {
        let token = self.exchange(key).await.expect(200);
        self.with_token(token["access_token"].as_str().unwrap())
    }
}

/// Parses the details of an audit record.
pub fn details(record: &Value) -> Value {
    serde_json::from_str(record["details_json"].as_str().unwrap()).unwrap()
}
