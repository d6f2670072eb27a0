//! Code examples that exchange an API key for a token.

use crate::domain::PublicUrl;

/// An example in one language.
pub(in crate::web::console) struct Snippet {
    pub(in crate::web::console) id: &'static str,
    pub(in crate::web::console) name: &'static str,
    pub(in crate::web::console) code: String,
}

/// Returns the examples with the given key.
pub(in crate::web::console) fn snippets(issuer: &PublicUrl, key: &str) -> Vec<Snippet> {
    let (url, issuer) = (issuer.at("/api/v1/auth/token"), issuer.as_str());
    let curl = format!("curl -s -X POST {url} \\\n  -H \"X-API-Key: {key}\"");
    let python = format!(
        "import httpx\n\nresponse = httpx.post(\n    \"{url}\",\n    headers={{\"X-API-Key\": \"{key}\"}},\n)\n\
         response.raise_for_status()\ntoken = response.json()[\"access_token\"]"
    );
    let typescript = format!(
        "const response = await fetch(\"{url}\", {{\n  method: \"POST\",\n  headers: {{ \"X-API-Key\": \
         \"{key}\" }},\n}});\nif (!response.ok) throw new Error(await response.text());\nconst {{ access_token }} = await response.json();"
    );
    let mcp = format!(
        "{{\n  \"mcpServers\": {{\n    \"my-server\": {{\n      \"command\": \"my-mcp-server\",\n      \"env\": {{\n        \
         \"AIMS_URL\": \"{issuer}\",\n        \"AIMS_API_KEY\": \"{key}\"\n      }}\n    }}\n  }}\n}}"
    );
    let all = [
        ("curl", "curl", curl),
        ("python", "Python", python),
        ("typescript", "TypeScript", typescript),
        ("mcp", "MCP", mcp),
    ];
    all.into_iter().map(|(id, name, code)| Snippet { id, name, code }).collect()
}
