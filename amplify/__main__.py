from amplify.cli import main

if __name__ == "__main__":
    main()
