//! A minimal browser: it keeps cookies and submits forms, but runs no scripts.

use std::{collections::BTreeMap, sync::Mutex};

use reqwest::{Method, StatusCode, header::HeaderMap};

/// A browser with its own cookies.
pub struct Browser {
    http: reqwest::Client,
    url: String,
    cookies: Mutex<BTreeMap<String, String>>,
}

/// A response of the console.
#[derive(Debug)]
pub struct Page {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Page {
    /// Asserts the status and returns the page.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    /// Asserts a redirect to `path`.
    #[track_caller]
    pub fn redirects_to(self, path: &str) -> Self {
        assert_eq!((self.status.as_u16(), self.location()), (303, path), "{}", self.text);
        self
    }

    pub fn location(&self) -> &str {
        self.headers.get("location").map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    pub fn shows(&self, text: &str) -> &Self {
        assert!(self.text.contains(text), "{text:?} is missing from {}", self.text);
        self
    }

    /// Returns the value of a hidden field.
    #[track_caller]
    pub fn hidden(&self, name: &str) -> String {
        let mark = format!("name=\"{name}\" value=\"");
        let from = self.text.find(&mark).unwrap_or_else(|| panic!("no field {name} in {}", self.text)) + mark.len();
        let value = &self.text[from..];
        unescape(&value[..value.find('"').unwrap()])
    }
}

fn unescape(text: &str) -> String {
    let names = [("&#34;", "\""), ("&#39;", "'"), ("&#60;", "<"), ("&#62;", ">"), ("&#38;", "&")];
    names.iter().fold(text.to_owned(), |text, (entity, character)| text.replace(entity, character))
}

pub type Form<'f> = &'f [(&'f str, &'f str)];

impl Browser {
    pub fn new(url: String) -> Self {
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Self { http: http.build().unwrap(), url, cookies: Mutex::default() }
    }

    pub fn cookie(&self, name: &str) -> Option<String> {
        self.cookies.lock().unwrap().get(name).cloned()
    }

    pub fn set_cookie(&self, name: &str, value: &str) {
        self.cookies.lock().unwrap().insert(name.to_owned(), value.to_owned());
    }

    /// Returns another browser with the same cookies.
    pub fn copy(&self) -> Self {
        let cookies = Mutex::new(self.cookies.lock().unwrap().clone());
        Self { http: self.http.clone(), url: self.url.clone(), cookies }
    }

    /// Builds a request with the cookies.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let cookies: Vec<_> =
            self.cookies.lock().unwrap().iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = self.http.request(method, format!("{}{path}", self.url));
        let request = request.header("user-agent", "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0");
        if cookies.is_empty() { request } else { request.header("cookie", cookies.join("; ")) }
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Page {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        for cookie in headers.get_all("set-cookie") {
            let (name, rest) = cookie.to_str().unwrap().split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            if rest.contains("Max-Age=0") {
                self.cookies.lock().unwrap().remove(name);
            } else {
                self.set_cookie(name, value);
            }
        }
        Page { status, headers, text: response.text().await.unwrap() }
    }

    pub async fn get(&self, path: &str) -> Page {
        self.send(self.request(Method::GET, path)).await
    }

    /// Submits a form from a page of the console.
    pub async fn post(&self, path: &str, form: Form<'_>) -> Page {
        let request = self.request(Method::POST, path).header("sec-fetch-site", "same-origin");
        self.send(request.form(form)).await
    }
}
